"""Build an environment with uv, atomically, and only once even if several processes ask for it."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from localapi.environments.pinned import Environment, python_version
from localapi.errors import EnvironmentFailed
from localapi.system.byte_sizes import readable

Tell = Callable[[str], None]
"""Function that is called with lines about the progress."""

_NOT_OURS: Final = frozenset(
    {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "UV_SYSTEM_PYTHON", "UV_CONSTRAINT", "UV_OVERRIDE"}
)
"""Variables that would make uv use another environment, or choose other versions."""

_USUAL_PLACES: Final = ("~/.local/bin/uv", "~/.cargo/bin/uv", "/opt/homebrew/bin/uv", "/usr/local/bin/uv")
"""Paths where uv's installers put it, because services have a short PATH."""


def install(environment: Environment, tell: Tell, *, force: bool = False) -> None:
    """Build the environment unless it exists; `force` rebuilds it. Raise EnvironmentFailed.

    It is built under a temporary name and renamed at the end, so an existing one is always complete. A killed process
    leaves only a temporary folder, which the next one deletes.
    """
    if environment.ready and not force:
        tell(f"{environment.name} is installed: {environment.folder}")
        return
    uv = find_uv(environment)
    try:
        environment.folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(environment, tell):
            if environment.ready and not force:
                tell(f"{environment.name} was installed by another process: {environment.folder}")
            else:
                _make(environment, uv, tell)
    except OSError as error:
        raise EnvironmentFailed(
            f"{environment.name} cannot be installed in {environment.folder.parent}: {error.strerror or error}. Fix "
            "that, or set LOCALAPI_ENVIRONMENTS to another folder."
        ) from error


def find_uv(environment: Environment) -> list[str]:
    """Return the command that runs uv. Raise EnvironmentFailed if it is not installed."""
    known = (os.environ.get("UV"), shutil.which("uv"), *(str(Path(place).expanduser()) for place in _USUAL_PLACES))
    for place in known:
        if place and os.access(place, os.X_OK) and Path(place).is_file():
            return [place]
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    raise EnvironmentFailed(
        f"{environment.name} needs uv, which is not installed. Install it with `pip install uv`, then run: "
        f"{environment.command}"
    )


@contextmanager
def _alone(environment: Environment, tell: Tell) -> Iterator[None]:
    """Hold a lock, so that one process builds at a time; the system releases it when the process ends."""
    with (environment.folder.parent / f".{environment.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another process that is installing {environment.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(environment: Environment, uv: Sequence[str], tell: Tell) -> None:
    began = time.monotonic()
    draft, old = (environment.folder.with_name(f".{environment.folder.name}.{what}") for what in ("draft", "old"))
    python = str(draft / "bin" / "python")
    tell(f"installing {environment.name} in {environment.folder}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    # uv downloads nothing if this Python is suitable.
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    base = sys.executable if python_version() == own else python_version()
    try:
        # --no-deps: the list is complete; mlx-audio-plus requires more than it needs.
        for command in (
            [*uv, "venv", "--quiet", "--no-project", "--relocatable", "--python", base, str(draft)],
            [*uv, "pip", "install", "--python", python, "--no-deps", "-r", str(environment.requirements)],
            [python, "-I", "-c", f"import {', '.join(environment.imports)}"],
        ):
            _run(command, environment, tell)
        if environment.folder.exists():
            environment.folder.rename(old)
        draft.rename(environment.folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    seconds = time.monotonic() - began
    tell(f"installed {environment.name} in {seconds:.0f} s: {readable(size_bytes(environment.folder))}")


def _run(command: Sequence[str], environment: Environment, tell: Tell) -> None:
    """Run a command. Raise EnvironmentFailed with its reason if it fails."""
    said: deque[str] = deque(maxlen=40)
    with subprocess.Popen(  # noqa: S603  # uv, or a Python of its making
        command,
        # Not in the current folder, where a project may have its own constraints.
        cwd="/",
        env={**{k: v for k, v in os.environ.items() if k not in _NOT_OURS}, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101  # it was started with a pipe
        failing = False
        for line in filter(None, map(str.strip, process.stdout)):
            said.append(line)
            failing = failing or line.startswith("error:")  # the exception has the rest
            if not failing and not line.startswith(("+ ", "warning:", "Using ")):
                tell(line)
    if process.returncode != 0:
        raise EnvironmentFailed(
            f"{environment.name} could not be installed: {_last_words(said)}. Check the network and the free disk "
            f"space, then run again: {environment.command}"
        )


def _last_words(said: Sequence[str]) -> str:
    """Return the first two and the last (the system's) of uv's "error:" and its causes, otherwise the last line."""
    errors = [at for at, line in enumerate(said) if line.startswith("error:")]
    words = list(said)[errors[-1] :] if errors else list(said)[-1:]
    chain = [re.sub(r"^(error|cause|caused by): *", "", each, flags=re.IGNORECASE).rstrip(".") for each in words]
    return ": ".join(dict.fromkeys([*chain[:2], *chain[-1:]])) or "no reason was given"


def size_bytes(folder: Path) -> int:
    """Return the total size of all files in a folder; a link counts as itself."""
    return sum(place.lstat().st_size for place in folder.rglob("*") if place.is_symlink() or place.is_file())
