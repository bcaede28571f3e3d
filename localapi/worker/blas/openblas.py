"""Replace MLX's BLAS by OpenBLAS: choose a library, prepare and try it once, and load it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.system.atomic_file import locked, write_whole
from localapi.system.folders import cache_folder
from localapi.system.openblas_library import PACKAGE, SWITCH, package_library
from localapi.worker.blas import verdicts
from localapi.worker.blas.elf import without_prefix
from localapi.worker.blas.threads import Threads, usable_cores
from localapi.worker.blas.verdicts import Verdict

_FORMAT: Final = "1"
"""Version of the cached files."""
_UNUSED_SECONDS: Final = 30 * 24 * 3600
"""Age at which a copy is deleted, because the library from which it was made has changed."""
_MACHINES: Final = ("x86_64", "aarch64")
_INSTALL: Final = f"Install it: uv pip install {PACKAGE}"


@dataclass(frozen=True)
class BlasChoice:
    """BLAS that MLX uses."""

    description: str
    """Description for users: the library, or the reason for MLX's own BLAS."""
    threads: Threads | None = None
    """Threads of OpenBLAS; None if MLX uses its own BLAS."""

    @property
    def is_fast(self) -> bool:
        return self.threads is not None


def install_openblas() -> BlasChoice | None:
    """Load OpenBLAS for MLX to find; return None if this MLX needs none.

    Must be called before MLX is imported, once in a process.
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return None
    try:
        mlx = importlib.metadata.version("mlx-cpu")
    except importlib.metadata.PackageNotFoundError:
        return None
    if os.environ.get(SWITCH, "").strip().lower() in OFF:
        return BlasChoice(f"its own BLAS, as {SWITCH} says")
    if "mlx.core" in sys.modules:
        return BlasChoice("its own BLAS: MLX was imported before")
    reasons = []
    for candidate in candidates():
        try:
            return _load_candidate(candidate, mlx)
        except (OSError, ValueError, AttributeError) as error:
            reasons.append(f"{candidate.path} cannot be used: {error}")
    reason = "; ".join(reasons) or f"OpenBLAS is not installed. {_INSTALL}"
    return BlasChoice(f"its own BLAS, which is slow. {reason}")


def _load_candidate(candidate: Candidate, mlx: str) -> BlasChoice:
    """Load this library. Raise OSError, ValueError or AttributeError with the reason if it cannot be used."""
    folder = cache_folder("openblas")
    if folder is not None:
        # not with a full disk, or one that does not allow executing files
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == os.geteuid():
                with locked(folder):  # one process prepares and tries libraries; the others find the result
                    library = _prepared(candidate, folder)
                    verdict = _verdict(library, folder / f"{verdicts.key(library.name, mlx)}.json")
                return _load(str(library), verdict)
    with _in_memory(_plain(candidate)) as (path, descriptor):
        return _load(path, verdicts.tried(path, [descriptor]))


def _prepared(candidate: Candidate, folder: Path) -> Path:
    """Return the library with plain names from the cache, after creating it if necessary.

    The file's name contains a checksum and the origin of its content. Raise OSError or NotRenamable.
    """
    made_of = hashlib.sha256(f"{_FORMAT} {candidate.stamp}".encode()).hexdigest()[:16]
    for library in folder.glob(f"{made_of}-*.so"):
        if _whole(library):
            os.utime(library)
            return library
        library.unlink()
    content = _plain(candidate)
    library = folder / f"{made_of}-{zlib.crc32(content):08x}.so"
    write_whole(library, content, mode=0o600)
    if not _whole(library):
        raise OSError(f"{folder} does not keep files as written")
    for old in folder.glob("*.so"):
        if time.time() - old.stat().st_mtime > _UNUSED_SECONDS:
            old.unlink()
    return library


def _verdict(library: Path, file: Path) -> Verdict:
    """Return the library's verdict, after trying it if there is none. Raise OSError if it can never be loaded."""
    if sys.platform == "linux" and os.statvfs(library).f_flag & os.ST_NOEXEC:
        raise OSError(f"the system does not allow executing files in {library.parent}")
    verdict = verdicts.read(file)
    if verdict is None:
        verdict = verdicts.tried(str(library))
        verdicts.keep(verdict, file)
    return verdict


def _plain(candidate: Candidate) -> bytes:
    """Return the library's content with the names that MLX looks for. Raise OSError or NotRenamable."""
    content = candidate.path.read_bytes()
    return without_prefix(content, PREFIX) if PREFIX + b"cblas_sgemm\0" in content else content


def _whole(library: Path) -> bool:
    """Return True if the file is as we wrote it, and no other user could have changed it."""
    about = library.stat()
    owned = about.st_uid == os.geteuid() and about.st_mode & 0o022 == 0
    return owned and library.stem.endswith(f"-{zlib.crc32(library.read_bytes()):08x}")


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield the path and the descriptor of a file in memory. Raise OSError if the system has no such files."""
    if sys.platform != "linux":
        raise OSError("files in memory exist on Linux only")
    descriptor = os.memfd_create("libopenblas", 0)
    with os.fdopen(descriptor, "wb", buffering=0, closefd=True) as file:
        file.write(content)
        os.set_inheritable(descriptor, False)
        yield f"/proc/self/fd/{descriptor}", descriptor


def _load(path: str, verdict: Verdict) -> BlasChoice:
    """Load a library. Raise ValueError with the reason of a bad verdict, or OSError if the loader refuses it."""
    if not verdict.good:
        raise ValueError(verdict.reason)
    most = usable_cores()
    before = os.environ.copy()
    os.environ["OPENBLAS_NUM_THREADS"] = str(most)  # it starts this many threads when it is loaded
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    finally:
        del os.environ["OPENBLAS_NUM_THREADS"]
        os.environ.update(before)
    words = verdict.about.split()
    name = " ".join(words[:2])
    # The build's options are upper case; the only other word is the processor that it was built for.
    targets = [word for word in words[2:] if not word.isupper() and "=" not in word and "_" not in word]
    if targets:
        name = f"{name} ({targets[0]})"
    return BlasChoice(f"{name}, up to {most} thread{'s' * (most > 1)}", Threads(most, library.openblas_set_num_threads))


OFF: Final = frozenset({"off", "0", "no", "false", "none"})
PREFIX: Final = b"scipy_"

_SYSTEM: Final = (
    "/usr/lib/{machine}-linux-gnu/openblas-pthread/libopenblas.so.0",  # Debian, Ubuntu
    "/usr/lib64/libopenblasp.so.0",  # Fedora
    "/usr/lib/libopenblas.so.0",  # Arch
)
"""Builds with threads of their own, because those with OpenMP do not survive a fork."""
_FILE_NAME: Final = re.compile(r"-r(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Candidate:
    """Library that may replace MLX's."""

    path: Path
    version: tuple[int, ...]
    """Version; empty if unknown."""

    @property
    def stamp(self) -> str:
        """Text that changes with the file's content. Raise OSError."""
        found = self.path.stat()
        return f"{self.path} {found.st_size} {found.st_mtime_ns}"


def candidates(environ: Mapping[str, str] = os.environ) -> list[Candidate]:
    """Return the libraries that may be used, the newest first."""
    said = environ.get(SWITCH, "").strip()
    if os.path.isabs(said):
        return [Candidate(Path(said), ())]
    found: list[Candidate] = []
    packaged = package_library()
    if packaged is not None:
        numbers = importlib.metadata.version(PACKAGE).split(".")[:3]
        found.append(Candidate(packaged, tuple(int(part) for part in numbers if part.isdecimal())))
    for pattern in _SYSTEM:
        path = Path(pattern.format(machine=platform.machine()))
        # The target of the link names the version: libopenblasp-r0.3.21.so.
        version = _FILE_NAME.search(os.path.realpath(path))
        if version and path.exists():
            found.append(Candidate(path, tuple(map(int, version.groups()))))
            break
    return sorted(found, key=lambda each: each.version, reverse=True)
