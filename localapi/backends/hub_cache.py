"""The Hub's cache on this machine: which repositories are there, how large they are, and how to remove one."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.backends.model_path import cache_folder, is_downloaded, is_repository

_PREFIX: Final = "models--"


@dataclass(frozen=True)
class Downloaded:
    """A repository in the cache."""

    repository: str
    folder: Path
    size_bytes: int
    """Space on the disk, with all revisions and what is half downloaded."""
    used_at: float
    """Unix time of the last read of its files, as far as the file system notes it."""
    is_complete: bool
    """False if weights of the main revision are missing."""


def downloaded() -> list[Downloaded]:
    """Return the repositories in the cache, by name. Blocks."""
    found: list[Downloaded] = []
    with contextlib.suppress(OSError):
        for folder in sorted(cache_folder().iterdir()):
            repository = folder.name.removeprefix(_PREFIX).replace("--", "/", 1)
            if folder.name.startswith(_PREFIX) and folder.is_dir() and is_repository(repository):
                found.append(_described(repository, folder))
    return found


def remove(repository: str) -> int:
    """Remove a repository from the cache, and return the bytes that this frees. Blocks. Raise OSError."""
    folder = cache_folder() / f"{_PREFIX}{repository.replace('/', '--')}"
    if not is_repository(repository) or folder.is_symlink() or not folder.is_dir():
        return 0
    size = _described(repository, folder).size_bytes
    shutil.rmtree(folder)
    return size


def _described(repository: str, folder: Path) -> Downloaded:
    size, used_at = 0, 0.0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            state = file.lstat()
            if file.is_symlink() or not file.is_file():
                continue
            size += state.st_size
            used_at = max(used_at, state.st_atime, state.st_mtime)
    return Downloaded(repository, folder, size, used_at, is_downloaded(repository))
