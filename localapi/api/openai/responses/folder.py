"""Responses on disk: one file each, private to the user, with limits on age and space.

A file is written under another name and renamed when complete. Its modification time is when it was last used; the
least recently used files are deleted first. Several servers may share the folder.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from localapi.system.os_errors import NO_ROOM

BLOCK_BYTES: Final = 4096
"""Space of the smallest file on a disk."""
STALE_SECONDS: Final = 600
"""Age at which an unfinished file must belong to a killed server."""
SHARE_LEFT: Final = 0.9
"""Share of the limit that remains in use after files are deleted for space, so that not every new file deletes another.
"""


class Folder:
    """The files. Methods block, and raise OSError. File names are ids of responses, which the caller checks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes: int | None = None
        """Size of all files; None if they have not been counted."""

    def exists(self) -> bool:
        """Return True if there may be files."""
        return self._path.is_dir()

    def write(self, name: str, data: bytes, *, max_bytes: int) -> None:
        """Write a file. If there is no room, delete the least recently used ones."""
        if _on_disk(len(data)) > max_bytes:
            raise OSError(f"{name} exceeds the space for all files")
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(max_bytes - _on_disk(len(data)), max_bytes)
        try:
            self._write(name, data)
        except OSError as error:
            if error.errno not in NO_ROOM or not self._bytes:
                raise
            self._delete_oldest(self._bytes // 2)
            self._write(name, data)

    def read(self, name: str) -> tuple[bytes, float] | None:
        """Return the content of a file and when it was last used; None if it does not exist."""
        try:
            with self._file(name).open("rb") as stream:
                return stream.read(), os.fstat(stream.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def touch(self, name: str) -> None:
        """Mark a file as used now."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._file(name))

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        self._remove(self._file(name))

    def sweep(self, *, max_bytes: int, keep_seconds: float) -> None:
        """Delete files that have been unused for this long, that exceed the limit, or that a killed server left."""
        now = time.time()
        for path in self._path.glob("*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
        for used_at, _, path in self._files():
            if now - used_at > keep_seconds:
                self._remove(path)
        self._bytes = None
        self._make_room(max_bytes, max_bytes)

    def _file(self, name: str) -> Path:
        return self._path / f"{name}.json"

    def _write(self, name: str, data: bytes) -> None:
        unfinished = self._path / f"{name}.{os.getpid()}.tmp"
        try:
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                stream.write(data)
            unfinished.replace(self._file(name))
        finally:
            unfinished.unlink(missing_ok=True)
        self._bytes = (self._bytes or 0) + _on_disk(len(data))

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, space and path of all files, the least recently used first."""
        found = []
        for path in self._path.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found.append((state.st_mtime, _on_disk(state.st_size), path))
        return sorted(found)

    def _make_room(self, most: int, max_bytes: int) -> None:
        """Reduce the space of the files to at most `most`."""
        if self._bytes is None or self._bytes > most:
            self._bytes = sum(size for _, size, _ in self._files())  # other servers write here too
        if self._bytes > most:
            self._delete_oldest(min(most, int(max_bytes * SHARE_LEFT)))

    def _delete_oldest(self, most: int) -> None:
        files = self._files()
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._bytes <= most:
                break
            path.unlink(missing_ok=True)
            self._bytes -= size

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            if self._bytes is not None:
                self._bytes -= _on_disk(size)


def _on_disk(size: int) -> int:
    """Return the disk space of a file of this size."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
