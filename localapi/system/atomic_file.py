"""Write files atomically, even if two processes write the same one, and let one process at a time use a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, mode: int | None = 0o600) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces the file at the end, unless an error is raised. Raise OSError.

    With `mode` None, the umask decides. Until the end, only the owner can read the temporary file.
    """
    handle, draft = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fchmod(handle, 0o666 & ~_umask() if mode is None else mode)
            os.fsync(handle)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def write_whole(path: Path, content: bytes, *, mode: int | None = 0o600) -> None:
    """Write a file, and create its folder if necessary. Raise OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path, mode=mode) as file:
        file.write(content)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process has locked a folder, then lock it. The system unlocks it when the process ends."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
