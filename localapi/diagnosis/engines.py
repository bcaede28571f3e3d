"""Check backends and other programs, without starting them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from typing import Final

from localapi.diagnosis.finding import Finding, Grade, Subject
from localapi.environments import NAMES, Environment, find_uv
from localapi.errors import EnvironmentFailed

PACKAGES: Final = {
    "mlx-lm": (("mlx_lm", "mlx"), "mlx-lm"),
    "piper": (("piper", "onnxruntime"), "piper-tts"),
    "espeak-ng": (("espeakng_loader",), "espeakng-loader"),
}
"""Imported modules of each backend in this environment, and the package that has them."""


def backends(subject: Subject) -> list[Finding]:
    """Check which backends can run."""
    found = [_package(subject, name) for name in PACKAGES]
    found += [_environment(subject, name) for name in NAMES]
    if sys.platform == "darwin" or subject.uses("macos-say"):
        path = shutil.which("say")
        says = (
            f"macos-say: {path}" if path else "macos-say needs the command `say` of macOS, which is not on this machine"
        )
        found.append(_finding(subject, "macos-say", says, "use backend: espeak-ng", there=path is not None))
    return found


def _package(subject: Subject, backend: str) -> Finding:
    modules, package = PACKAGES[backend]
    lacking = [module for module in modules if importlib.util.find_spec(module) is None]
    if not lacking:
        return Finding("backends", "ok", f"{backend}: {package} {importlib.metadata.version(package)}")
    says = f"{backend}: {', '.join(lacking)} cannot be imported"
    return _finding(subject, backend, says, f"uv pip install {package}", there=False)


def _environment(subject: Subject, name: str) -> Finding:
    environment = Environment.named(name)
    if environment.ready:
        return Finding("backends", "ok", f"{name}: {environment.folder}")
    return _finding(subject, name, f"{name}: its environment is not installed", environment.command, there=False)


def _finding(subject: Subject, backend: str, says: str, mend: str, *, there: bool) -> Finding:
    if there:
        return Finding("backends", "ok", says)
    grade: Grade = "missing" if subject.uses(backend) and not _installs_itself(subject, backend) else "note"
    return Finding("backends", grade, says, mend)


def _installs_itself(subject: Subject, backend: str) -> bool:
    """Return whether every entry of a backend has `install: auto`."""
    entries = subject.manifest.entries.values() if subject.manifest else ()
    return all(
        getattr(entry.options, "install", None) == "auto" for entry in entries if entry.options.backend_name == backend
    )


def uv(_: Subject) -> list[Finding]:
    """Check for uv, which installs environments."""
    try:
        command = find_uv(Environment.named(NAMES[0]))
    except EnvironmentFailed:
        return [Finding("uv", "note", "uv is not installed; `localapi install` needs it", "pip install uv")]
    return [Finding("uv", "ok", " ".join(command))]


def player(subject: Subject) -> list[Finding]:
    """Check for a program with which `localapi say` plays sound."""
    found = next((name for name in subject.players if shutil.which(name)), None)
    if found is None:
        says = f"no program plays sound ({', '.join(subject.players)}); `localapi say` needs --output FILE"
        return [Finding("player", "note", says)]
    return [Finding("player", "ok", found)]
