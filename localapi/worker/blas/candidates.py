"""The OpenBLAS libraries of this machine: the one of PyPI's scipy-openblas32, and the system's own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.system.openblas_library import PACKAGE, SWITCH, package_library

OFF: Final = frozenset({"off", "0", "no", "false", "none"})
PREFIX: Final = b"scipy_"

_SYSTEM: Final = (
    "/usr/lib/{machine}-linux-gnu/openblas-pthread/libopenblas.so.0",  # Debian, Ubuntu
    "/usr/lib64/libopenblasp.so.0",  # Fedora
    "/usr/lib/libopenblas.so.0",  # Arch
)
"""The builds with threads of their own: those with OpenMP do not survive a fork."""
_FILE_NAME: Final = re.compile(r"-r(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Candidate:
    """A library that may take the place of MLX's."""

    path: Path
    version: tuple[int, ...]
    """Empty if it is not known."""

    @property
    def stamp(self) -> str:
        """What changes with the file's content. Raises OSError."""
        found = self.path.stat()
        return f"{self.path} {found.st_size} {found.st_mtime_ns}"


def candidates(environ: Mapping[str, str] = os.environ) -> list[Candidate]:
    """Return the libraries that may be used, the best first; empty if there are none."""
    said = environ.get(SWITCH, "").strip()
    if os.path.isabs(said):
        return [Candidate(Path(said), ())]
    found = [*_of_package(), *_of_system()]
    return sorted(found, key=lambda each: each.version, reverse=True)


def _of_package() -> list[Candidate]:
    path = package_library()
    if path is None:
        return []
    version = importlib.metadata.version(PACKAGE).split(".")
    return [Candidate(path, tuple(int(part) for part in version[:3] if part.isdecimal()))]


def _of_system() -> list[Candidate]:
    for pattern in _SYSTEM:
        path = Path(pattern.format(machine=platform.machine()))
        # The link's target says which version it is: libopenblasp-r0.3.21.so.
        version = _FILE_NAME.search(os.path.realpath(path))
        if version and path.exists():
            return [Candidate(path, tuple(map(int, version.groups())))]
    return []
