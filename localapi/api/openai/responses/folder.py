"""Responses on disk: one file each, private to the user, within a limit of time and of space.

A file is written under another name and renamed when complete. Its time of change is when it was last used: what has
not been used for the longest time goes first. Several servers may share the folder.
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
"""Share of the limit that stays in use after files are deleted for it, so that not every file deletes another."""


class Folder:
    """The files. Methods block, and raise OSError. Names of files are ids of responses, which the caller checks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes: int | None = None
        """Size of all files; None if they have not been counted."""

    def exists(self) -> bool:
        """Return True if there may be files."""
        return self._path.is_dir()

    def write(self, name: str, data: bytes, *, max_bytes: int) -> None:
        """Write a file. If there is no room, delete those that were used the longest time ago."""
        if _on_disk(len(data)) > max_bytes:
            raise OSError(f"{name} is larger than all files may be together")
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
        """Return the content of a file and when it was last used; None if there is no such file."""
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
        """Delete a file if it is there."""
        self._remove(self._file(name))

    def sweep(self, *, max_bytes: int, keep_seconds: float) -> None:
        """Delete what has not been used for so long, what exceeds the limit, and what a killed server left."""
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
        """Return time of last use, space and path of all files, the longest unused first."""
        found = []
        for path in self._path.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found.append((state.st_mtime, _on_disk(state.st_size), path))
        return sorted(found)

    def _make_room(self, most: int, max_bytes: int) -> None:
        """Let the files take no more than `most`."""
        if self._bytes is None or self._bytes > most:
            self._bytes = sum(size for _, size, _ in self._files())  # other servers write here, too
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
    """Return the space that a file of this size takes."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
