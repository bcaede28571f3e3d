"""Check the machine: Python, chip, memory, disk, and the service."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from localapi.backends.model_path import cache_folder
from localapi.diagnosis.finding import Finding, Grade, Subject
from localapi.service import system
from localapi.system.byte_sizes import readable
from localapi.system.openblas_library import PACKAGE, SWITCH

OLDEST: Final = (3, 11)
MLX_SECONDS: Final = 7.0
LITTLE_DISK: Final = 5 * 2**30
_MLX: Final = ("mlx-lm",)


def python(_: Subject) -> list[Finding]:
    """Check the version of Python, and the system."""
    here = f"Python {platform.python_version()} on {platform.platform(terse=True)}, {platform.machine()}"
    if sys.version_info < OLDEST:
        return [Finding("python", "missing", here, "install Python 3.11 or newer")]
    if sys.platform == "darwin" and platform.machine() != "arm64":
        return [Finding("python", "missing", f"{here}: MLX needs Apple silicon, and a native Python")]
    return [Finding("python", "ok", here)]


def mlx(subject: Subject) -> list[Finding]:
    """Ask MLX for its device, in a separate process, as a broken driver may crash it."""
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
        return [_on_processor(words, about["blas"])]
    return [Finding("mlx", "ok", f"{words}, {readable(about['memory_bytes'] or 0)} for models")]


def _on_processor(words: str, blas: dict[str, Any] | None) -> Finding:
    """Return the finding for MLX on a CPU, with its BLAS library."""
    says = f"{words}; large models are slow without a GPU"
    if blas is None:
        return Finding("mlx", "ok", says)
    if blas["fast"]:
        return Finding("mlx", "ok", f"{words}, with {blas['says']}; large models are slow without a GPU")
    mend = f"unset {SWITCH}" if os.environ.get(SWITCH) else f"uv pip install --reinstall {PACKAGE}"
    return Finding("mlx", "note", f"{words}, with {blas['says']}", mend)


def memory(subject: Subject) -> list[Finding]:
    """Check the amount of memory, and the manifest's budget."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    budget = subject.manifest.server.memory_budget if subject.manifest else None
    if budget is None:
        return [Finding("memory", "ok", f"{readable(total)}, without a limit for models (no memory_budget)")]
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
