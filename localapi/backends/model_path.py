"""Where a model is: the embedded demo, a folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from localapi.errors import MOST_SHOWN, LoadFailed, shown
from localapi.system.os_errors import advise

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent.parent / "demo" / "model"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_OF_A_PLACE = ("/", "./", "../", "~")


def cache_folder() -> Path:
    """Where the Hub's client keeps what it downloads."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def is_repository(name: str) -> bool:
    """Whether a repository of the Hub can have this name."""
    return _REPOSITORY.fullmatch(name) is not None


def is_place(path: str) -> bool:
    """Whether a path is one of this machine by its beginning, whatever exists."""
    return path.startswith(_OF_A_PLACE)


def placed(path: str, folder: Path) -> Path:
    """A path that starts from a folder, absolute; the home of a user whom nobody knows stays as it was written."""
    return (folder / os.path.expanduser(path)).absolute()  # Path's own raises for such a user


def shown_place(path: str, place: Path) -> str:
    """Return where a path leads, for a message; of a text that is too long for a path, its beginning."""
    return str(place) if len(path) <= MOST_SHOWN else shown(path)


def cached(repository: str, revision: str | None = None) -> Path | None:
    """The folder where the Hub's cache has a repository; None where it has none, or no such repository can be."""
    if not is_repository(repository):
        return None
    folder = cache_folder() / f"models--{repository.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError):
        commit = (folder / "refs" / commit).read_text().strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def weights(path: str | None, revision: str | None = None) -> list[Path]:
    """The weights in a located folder or repository, as far as they are on this machine."""
    folder = Path(path) if path and Path(path).is_dir() else cached(path or "", revision)
    return sorted(folder.rglob("*.safetensors")) if folder else []


def resolve(path: str, folder: Path, *, must_hold: str) -> str:
    """An absolute folder, or the repository's name as it stands.

    `demo` is the model that comes with this package. A path that starts with /, ./, ../ or ~, or that exists below
    `folder`, is a folder and must hold the file `must_hold`; anything of the form owner/name is a repository. Raises
    ValueError with what was found instead.
    """
    if path == DEMO:
        return str(DEMO_FOLDER)
    place = placed(path, folder)
    try:
        return _folder(path, place, must_hold)
    except OSError as error:
        raise ValueError(f"{shown_place(path, place)} cannot be read: {advise(error)}") from error


def check_present(paths: Iterable[tuple[str | None, str]]) -> None:
    """Whether the folders among located paths still hold what they must; repositories are not looked at.

    Found out here, it costs no process, and the next load succeeds as soon as the folder is back. Blocks. Raises
    LoadFailed.
    """
    for path, must_hold in paths:
        if path and Path(path).is_absolute():
            try:
                resolve(path, Path("/"), must_hold=must_hold)
            except ValueError as error:
                raise LoadFailed(f"The model cannot be loaded: {error}.", counts=False) from error


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
            f"{shown_place(path, place)} holds no {must_hold}; found: {', '.join(found) or 'an empty folder'}"
        )
    return str(place)
