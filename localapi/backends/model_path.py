"""Paths of models: the included demo, a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.errors import MOST_SHOWN, FilesUnreadable, shown
from localapi.system.os_errors import advise

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "model"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_WEIGHTS = frozenset({".safetensors", ".onnx", ".bin", ".npz", ".gguf", ".pt", ".pth"})
_OF_A_PLACE = ("/", "./", "../", "~")


def cache_folder() -> Path:
    """Return the download folder of the Hub's client."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def is_repository(name: str) -> bool:
    """Return whether this is a valid repository name on the Hub."""
    return _REPOSITORY.fullmatch(name) is not None


def is_place(path: str) -> bool:
    """Return whether a text is written as a path on this machine, existing or not."""
    return path.startswith(_OF_A_PLACE)


def placed(path: str, folder: Path) -> Path:
    """Return an absolute path, relative to a folder. An unknown user's home (~name) stays as written."""
    return (folder / os.path.expanduser(path)).absolute()  # Path.expanduser raises for such a user


def shown_place(path: str, place: Path) -> str:
    """Return an absolute path for a message, or the beginning of a text that is too long for a path."""
    return str(place) if len(path) <= MOST_SHOWN else shown(path)


def cached(repository: str, revision: str | None = None) -> Path | None:
    """Return the folder of a repository in the Hub's cache, or None if it is not there."""
    if not is_repository(repository):
        return None
    folder = cache_folder() / f"models--{repository.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError):
        commit = (folder / "refs" / commit).read_text().strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def is_downloaded(repository: str, revision: str | None = None) -> bool:
    """Return whether all weights of a repository are in the Hub's cache. Blocks."""
    folder = cached(repository, revision)
    if folder is None:
        return False
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        return all((folder / name).exists() for name in set(index["weight_map"].values()))
    return any(file.suffix in _WEIGHTS and file.exists() for file in folder.rglob("*"))


def folder_of_model(path: str | None, revision: str | None = None) -> Path | None:
    """Return the folder of a located folder or repository, if it is on this machine."""
    return Path(path) if path and Path(path).is_dir() else cached(path or "", revision)


def weights(path: str | None, revision: str | None = None) -> list[Path]:
    """Return the weight files of a located folder or repository that are on this machine."""
    folder = folder_of_model(path, revision)
    return sorted(folder.rglob("*.safetensors")) if folder else []


def resolve(path: str, folder: Path, *, must_hold: str) -> str:
    """Return an absolute folder, or the name of a repository unchanged.

    `demo` is the model that this package includes. A path that starts with /, ./, ../ or ~, or that exists below
    `folder`, is a folder and must contain the file `must_hold`. Anything else of the form owner/name is a repository.
    Raise ValueError, with what was found, for anything else.
    """
    if path == DEMO:
        return str(DEMO_FOLDER)
    place = placed(path, folder)
    try:
        return _folder(path, place, must_hold)
    except OSError as error:
        raise ValueError(f"{shown_place(path, place)} cannot be read: {advise(error)}") from error


def folder_at(path: str, folder: Path) -> Path:
    """Return the folder that an option names, with links resolved. Raise ValueError if there is none."""
    place = placed(path, folder)
    try:
        is_folder, exists, resolved = place.is_dir(), place.exists(), place.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, or inside a folder that may not be searched
        reason = advise(error) if isinstance(error, OSError) else error
        raise ValueError(f"{shown(path)} cannot be looked up: {reason}") from error
    if not is_folder:
        raise ValueError(f"{shown_place(path, place)} {'is not a folder' if exists else 'does not exist'}")
    return resolved


def on_node(path: str, folder: Path) -> str:
    """Return a path for another machine, which determines its meaning: demo, an absolute folder, or a repository."""
    if path == DEMO or (is_repository(path) and not is_place(path)):
        return path
    return str(placed(path, folder))


def check_present(paths: Iterable[tuple[str | None, str]]) -> None:
    """Raise FilesUnreadable if a folder among located paths is gone or incomplete. Blocks.

    Repositories are not checked. Because the check precedes the start of a process, the next load succeeds as soon as
    the folder is back.
    """
    for path, must_hold in paths:
        if path and Path(path).is_absolute():
            try:
                resolve(path, Path("/"), must_hold=must_hold)
            except ValueError as error:
                raise FilesUnreadable(f"The model cannot be loaded: {error}.") from error


def _folder(path: str, place: Path, must_hold: str) -> str:
    if not is_place(path) and not place.exists():
        if is_repository(path):
            return path
        raise ValueError(
            f"{shown(path)} is neither a folder ({shown_place(path, place)} does not exist) nor a Hugging Face "
            "repository (owner/name)"
        )
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "does not exist"
        raise ValueError(
            f"{shown_place(path, place)} {what}; give the model's folder or a Hugging Face repository (owner/name)"
        )
    if not (place / must_hold).is_file():
        found = sorted(p.name for p in place.iterdir())[:8]
        raise ValueError(
            f"{shown_place(path, place)} does not contain {must_hold}; found: {', '.join(found) or 'an empty folder'}"
        )
    return str(place)


_PREFIX: Final = "models--"


@dataclass(frozen=True)
class Downloaded:
    """Repository in the cache."""

    repository: str
    folder: Path
    size_bytes: int
    """Disk space of all revisions and partial downloads."""
    used_at: float
    """Unix time of the last read of its files, as far as the file system records it."""
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
    """Remove a repository from the cache, and return the freed bytes. Blocks. Raise OSError."""
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
