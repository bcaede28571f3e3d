"""The checks of the machine, the backends, the models, the port and the Hub, in the order of the report."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from localapi.backends.mlx_lm import MlxLm
from localapi.backends.model_path import cache_folder, cached, folder_of_model
from localapi.backends.peer import faults
from localapi.backends.place import Placeable
from localapi.backends.pool import PoolOptions
from localapi.cluster.protocol import Node
from localapi.cluster.rooms import CannotStart, check_room, offered
from localapi.diagnosis.finding import Check, Finding, Grade, Subject
from localapi.environments import NAMES, Environment, find_uv
from localapi.errors import EnvironmentFailed, NoServer, Refused
from localapi.manifest import Entry
from localapi.observability.traces import PACKAGE as TRACES
from localapi.service import system
from localapi.system.byte_sizes import readable
from localapi.system.openblas_library import PACKAGE, SWITCH
from localapi.system.threads import within

OLDEST: Final = (3, 11)
MLX_SECONDS: Final = 7.0
FORMATS_SECONDS: Final = 7.5
LITTLE_DISK: Final = 5 * 2**30
_MLX: Final = ("mlx-lm",)
PACKAGES: Final = {
    "mlx-lm": (("mlx_lm", "mlx"), "mlx-lm"),
    "piper": (("piper", "onnxruntime"), "piper-tts"),
    "espeak-ng": (("espeakng_loader",), "espeakng-loader"),
}
"""Imported modules of each backend in this environment, and the package that contains them."""
ANSWER_SECONDS: Final = 4.0
HUB: Final = "https://huggingface.co"


def python(_: Subject) -> list[Finding]:
    """Check the version of Python, and the system."""
    here = f"Python {platform.python_version()} on {platform.platform(terse=True)}, {platform.machine()}"
    if sys.version_info < OLDEST:
        return [Finding("python", "missing", here, "install Python 3.11 or newer")]
    if sys.platform == "darwin" and platform.machine() != "arm64":
        return [Finding("python", "missing", f"{here}: MLX needs Apple silicon, and a native Python")]
    return [Finding("python", "ok", here)]


def mlx(subject: Subject) -> list[Finding]:
    """Ask MLX for its device in a separate process, because a broken driver may crash it."""
    try:
        done = subprocess.run(  # this Python, with our own module
            [sys.executable, "-P", "-m", "localapi.worker.device"],
            capture_output=True, text=True, timeout=MLX_SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [Finding("mlx", "note", f"did not report its device within {MLX_SECONDS:g} s")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        grade: Grade = "missing" if subject.uses(*_MLX) else "note"
        return [Finding("mlx", grade, f"MLX does not work here: {last}", "uv pip install --reinstall mlx mlx-lm")]
    about = json.loads(done.stdout)
    words = f"MLX {about['version']} on {about['driver']}: {about['name']}"
    if about["driver"] == "CPU":
        blas = about["blas"]
        if blas is not None:
            words += f", with {blas['says']}"
        if blas is not None and not blas["fast"]:
            mend = f"unset {SWITCH}" if os.environ.get(SWITCH) else f"uv pip install --reinstall {PACKAGE}"
            return [Finding("mlx", "note", words, mend)]
        return [Finding("mlx", "ok", f"{words}; large models are slow without a GPU")]
    return [Finding("mlx", "ok", f"{words}, {readable(about['memory_bytes'] or 0)} for models")]


def memory(subject: Subject) -> list[Finding]:
    """Check the amount of memory, and the manifest's budget."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    budget = subject.manifest.server.memory_budget if subject.manifest else None
    if budget is None:
        return [Finding("memory", "ok", f"{readable(total)}, with no limit for models (no memory_budget)")]
    if budget > total:
        says = f"{readable(total)}, less than the memory_budget of {readable(budget)}"
        return [Finding("memory", "note", says, "set server.memory_budget below that, such as 75%")]
    return [Finding("memory", "ok", f"{readable(total)}, with a memory_budget of {readable(budget)}")]


def disk(_: Subject) -> list[Finding]:
    """Check the disk space for downloads."""
    cache = cache_folder()
    place = next(place for place in (cache, *cache.parents) if place.exists())
    free = shutil.disk_usage(place).free
    says = f"{readable(free)} free for downloads in {cache}"
    if not os.access(place, os.W_OK):
        return [Finding("disk", "note", f"{place} is not writable", "set HF_HOME to another folder")]
    if free < LITTLE_DISK:
        return [Finding("disk", "note", says, "free some space, or set HF_HOME to another folder")]
    return [Finding("disk", "ok", says)]


def service(_: Subject) -> list[Finding]:
    """Check whether the server is installed as a service."""
    state = system().state()
    if not state.installed:
        return [Finding("service", "ok", "not installed; `localapi service install` starts the server with the system")]
    if state.running:
        return [Finding("service", "ok", f"installed: {state.words}")]
    return [Finding("service", "note", f"installed, but not running: {state.words}", "localapi service install")]


def size_of(files: list[Path]) -> int:
    """Return the total size of the files that exist."""
    return sum(file.stat().st_size for file in files if file.exists())


def backends(subject: Subject) -> list[Finding]:
    """Check which backends can run."""
    found = []
    for name, (modules, package) in PACKAGES.items():
        lacking = [module for module in modules if importlib.util.find_spec(module) is None]
        if lacking:
            says = f"{name}: {', '.join(lacking)} cannot be imported"
            found.append(_lacking(subject, name, says, f"uv pip install {package}"))
        else:
            found.append(Finding("backends", "ok", f"{name}: {package} {importlib.metadata.version(package)}"))
    for name in NAMES:
        environment = Environment.named(name)
        if environment.ready:
            found.append(Finding("backends", "ok", f"{name}: {environment.folder}"))
        else:
            says = f"{name}: its environment is not installed"
            found.append(_lacking(subject, name, says, environment.command))
    if sys.platform == "darwin" or subject.uses("macos-say"):
        path = shutil.which("say")
        if path is not None:
            found.append(Finding("backends", "ok", f"macos-say: {path}"))
        else:
            says = "macos-say needs the command `say` of macOS, which is not on this machine"
            found.append(_lacking(subject, "macos-say", says, "use backend: espeak-ng"))
    return found


def _lacking(subject: Subject, backend: str, says: str, mend: str) -> Finding:
    """Return the finding for a backend that cannot run. It matters if an entry needs it without `install: auto`."""
    using = [entry.options for entry in subject.entries if entry.options.backend_name == backend]
    needed = any(getattr(options, "install", None) != "auto" for options in using)
    return Finding("backends", "missing" if needed else "note", says, mend)


def uv(_: Subject) -> list[Finding]:
    """Check for uv, which installs environments."""
    try:
        command = find_uv(Environment.named(NAMES[0]))
    except EnvironmentFailed:
        return [Finding("uv", "note", "uv is not installed; `localapi install` needs it", "pip install uv")]
    return [Finding("uv", "ok", " ".join(command))]


def player(subject: Subject) -> list[Finding]:
    """Check for a program by which `localapi say` can play sound."""
    found = next((name for name in subject.players if shutil.which(name)), None)
    if found is None:
        says = f"no program to play sound was found ({', '.join(subject.players)}); `localapi say` needs --output FILE"
        return [Finding("player", "note", says)]
    return [Finding("player", "ok", found)]


def manifest(subject: Subject) -> list[Finding]:
    """Check that the manifest is valid, and that the secrets of its keys can be read."""
    if subject.manifest is None:
        found = []
        for problem in subject.problems:
            mend = "localapi add demo" if problem.line is None else None  # creates a missing file
            found.append(Finding("manifest", "missing", str(problem), mend))
        return found
    files = ", ".join(str(file.path) for file in subject.manifest.files) or "the environment"
    keys = len(subject.manifest.keys)
    secrets = f"; {keys} key{'s' * (keys != 1)}, each with its secret" if keys else ""
    count = len(subject.manifest.entries)
    if not count:
        return [Finding("manifest", "note", f"{files}: valid, without models", "localapi add REPO_OR_PATH")]
    return [Finding("manifest", "ok", f"{files}: valid, {count} model{'s' * (count != 1)}{secrets}")]


def files(subject: Subject) -> list[Finding]:
    """Check for each entry whether its files are on this machine."""
    return [finding for entry in subject.entries for finding in _of(entry)]


def _of(entry: Entry) -> Iterator[Finding]:
    obstacle = entry.options.obstacle()
    if obstacle is not None:
        yield Finding("models", "missing", f"{entry.id}: {obstacle}")
        return
    if entry.options.is_remote:
        yield Finding("models", "ok", f"{entry.id}: {entry.options.backend_name}, on a node of the cluster")
        return
    missing = [(name, revision) for name, revision in entry.options.repositories() if cached(name, revision) is None]
    if missing:
        reachable = hub_answers() is None
        for name, revision in missing:
            says = f"{entry.id}: {name} is not downloaded"
            command = f"localapi pull {name}"
            if revision:
                command += f" --revision {revision}"
            if reachable:
                yield Finding("models", "note", f"{says}; its first request downloads it", command)
            else:
                yield Finding("models", "missing", f"{says}; the Hugging Face Hub cannot be reached from here", command)
        return
    says = f"{entry.id}: {entry.options.backend_name}"
    if isinstance(entry.options, PoolOptions):
        says += f" of {', '.join(entry.options.of)}"
    elif entry.options.runs_at is not None:
        says += f" at {entry.options.runs_at}" if entry.options.runs_in == "upstream" else f": {entry.options.runs_at}"
    size = size_of(list(entry.options.weight_files()))
    if size:
        says += f", {readable(size)}"
    yield Finding("models", "ok", says)


def formats(subject: Subject) -> list[Finding]:
    """Ask for the formats of tool calls and reasoning of models on this machine, in a process that reads tokenizers."""
    asked: dict[str, dict[str, str]] = {}
    for entry in subject.entries:
        options = entry.options
        if isinstance(options, MlxLm) and not options.is_remote and options.obstacle() is None:
            folder = folder_of_model(options.path, options.revision)
            if folder is not None:
                chosen = {"tool_format": options.tool_format, "reasoning_format": options.reasoning_format}
                asked[entry.id] = {"folder": str(folder), **chosen}
    if not asked:
        return [Finding("formats", "ok", "no chat model is downloaded")]
    command = [sys.executable, "-P", "-m", "localapi.worker.llm.recognised_formats", *map(json.dumps, asked.values())]
    try:
        done = subprocess.run(  # noqa: S603  # this Python, with our own module
            command, capture_output=True, timeout=FORMATS_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
        lines, why = done.stdout.splitlines(), f"the process ended with status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        lines, why = (error.stdout or b"").splitlines(), f"not known within {FORMATS_SECONDS:g} s"
    found = []
    for at, name in enumerate(asked):
        told = json.loads(lines[at]) if at < len(lines) else {"error": why}
        if "error" in told:
            found.append(Finding("formats", "note", f"{name}: {told['error']}"))
        else:
            says = f"{name}: tool_format {told['tool_format'] or 'none'}, reasoning_format "
            found.append(Finding("formats", "ok", says + (told["reasoning_format"] or "none")))
    return found


def server(subject: Subject) -> list[Finding]:
    """Check whether the port is free, or used by localapi."""
    at = subject.server.address
    if not subject.server.is_there():
        return [Finding("server", "ok", f"not running on {at}; the port is free")]
    try:
        told = subject.server.get("/openapi.json", seconds=ANSWER_SECONDS)
        ours = told["info"]["title"] == "localapi"
    except Refused as error:
        return [Finding("server", "note", f"{at} responds: {error}")]
    except (NoServer, KeyError, TypeError):
        ours = False
    if not ours:
        return [
            Finding("server", "missing", f"another program responds on {at}", f"localapi --port {subject.port + 1}")
        ]
    return [Finding("server", "ok", f"localapi {told['info']['version']} is running on {at}")]


def cluster(subject: Subject) -> list[Finding]:
    """Check that Ray is installed if the manifest names a cluster, and ask a running server for its nodes."""
    address = subject.manifest.cluster if subject.manifest else None
    if address is None:
        return [Finding("cluster", "ok", "none (no server.cluster)")]
    grade: Grade = "missing" if any(each.options.is_remote for each in subject.entries) else "note"
    if importlib.util.find_spec("ray") is None:
        return [Finding("cluster", grade, "the package ray is not installed", "uv pip install 'localapi[ray]'")]
    version = importlib.metadata.version("ray")
    if not subject.server.is_there():
        return [Finding("cluster", "ok", f"Ray {version}; a running server would report whether {address} responds")]
    told = subject.server.get("/status", seconds=ANSWER_SECONDS).get("cluster")
    if told is None:
        return [Finding("cluster", "note", f"Ray {version}; the running server follows no cluster")]
    if not told["joined"]:
        return [Finding("cluster", grade, told["error"] or f"{address} is being joined", "ray status")]
    nodes = msgspec.convert(told["nodes"], list[Node])
    offers = "; ".join(f"{node.name}: {offered(node)}" for node in nodes if node.alive)
    found = [Finding("cluster", "ok", f"Ray {version}; nodes: {offers}")]
    for entry in subject.entries:
        if isinstance(entry.options, Placeable) and entry.options.place is not None:
            try:
                check_room(entry.options.place.requirements, entry.options.processes, nodes)
            except CannotStart as error:
                found.append(Finding("cluster", "missing", f"{entry.id}: {error}"))
    return found


def peers(subject: Subject) -> list[Finding]:
    """Ask the manifest's peers for their models."""
    named = subject.manifest.peers if subject.manifest else {}
    if not named:
        return [Finding("peers", "ok", "none (no peers)")]
    reasons = asyncio.run(faults(named, seconds=ANSWER_SECONDS))
    found: list[Finding] = []
    for name, options in named.items():
        if name in reasons:
            found.append(Finding("peers", "note", f"{name}: {reasons[name]}"))
        else:
            found.append(Finding("peers", "ok", f"{name}: {options.host} responds"))
    return found


def traces(subject: Subject) -> list[Finding]:
    """Check that what sends traces is installed if the manifest asks for them, and that the collector answers."""
    options = subject.manifest.server.traces if subject.manifest else None
    if options is None:
        return [Finding("traces", "ok", "none (no server.traces)")]
    try:
        version = importlib.metadata.version(TRACES)
    except importlib.metadata.PackageNotFoundError:
        return [Finding("traces", "missing", "OpenTelemetry is not installed", f"uv pip install {TRACES}")]
    says = f"OpenTelemetry {version}"
    if options.endpoint is None:
        return [Finding("traces", "ok", f"{says}; traces go where the server's OTEL_ variables say")]
    why = _asked(options.endpoint)
    if why is not None:
        return [Finding("traces", "note", f"{says}; {options.endpoint} does not respond: {why}", "start the collector")]
    return [Finding("traces", "ok", f"{says}; {options.endpoint} responds")]


def hub(_: Subject) -> list[Finding]:
    """Check whether models can be downloaded."""
    why = hub_answers()
    place = os.environ.get("HF_ENDPOINT") or HUB
    if why is None:
        return [Finding("hub", "ok", f"{place} responds")]
    says = f"{place} cannot be reached ({why}); models cannot be downloaded"
    return [Finding("hub", "note", says, "check the network, or set HTTPS_PROXY")]


_asking: Final = threading.Lock()


def hub_answers() -> str | None:
    """Return why the Hub does not respond, or None if it does. Ask only once."""
    with _asking:
        return _answer()


@functools.lru_cache(maxsize=1)
def _answer() -> str | None:
    """Ask the Hub in a separate thread, because the system's name resolution has no time limit."""
    try:
        return within(ANSWER_SECONDS, lambda: _asked(os.environ.get("HF_ENDPOINT") or HUB))
    except TimeoutError as error:
        return str(error)


def _asked(place: str) -> str | None:
    asked = urllib.request.Request(place, method="HEAD")  # noqa: S310  # the user's own setting, or https
    try:
        with urllib.request.urlopen(asked, timeout=ANSWER_SECONDS):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # it responds
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


CHECKS: Final[Mapping[str, Check]] = {
    "python": python,
    "mlx": mlx,
    "memory": memory,
    "disk": disk,
    "backends": backends,
    "uv": uv,
    "player": player,
    "manifest": manifest,
    "models": files,
    "formats": formats,
    "server": server,
    "cluster": cluster,
    "peers": peers,
    "traces": traces,
    "hub": hub,
    "service": service,
}
