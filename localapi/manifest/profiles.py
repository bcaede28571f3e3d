"""Find shipped files and profiles: the first manifest of a new user, and profiles by name or path."""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Final

import localapi
from localapi.errors import ManifestError, Problem

SCHEMA: Final = "models.schema.json"
_FOLDER = "configs"
_NAME = re.compile(r"[A-Za-z0-9_][\w-]*(\.[\w-]+)*")


def is_path(profile: str) -> bool:
    """Return whether a profile is given as a path instead of a name."""
    return "/" in profile or profile.endswith((".yaml", ".yml"))


def profile_path(profile: str, manifest: Path) -> Path:
    """Return the profile's file, or the first place to look for it. Raise ManifestError for an invalid name."""
    if is_path(profile):
        return Path(profile)
    if not _NAME.fullmatch(profile):
        message = f"{profile!r} is not a valid profile name; use letters, digits, - and _, or a path with a slash"
        raise ManifestError([Problem("profile", message)])
    candidates = [folder / f"{profile}.yaml" for folder in _folders(manifest)]
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def unknown_profile(profile: str, path: Path, manifest: Path) -> Problem:
    """Return the problem for a profile whose file does not exist."""
    if path == Path(profile):
        return Problem(str(path), "this profile does not exist; give the name of a profile or the path of its file")
    folders = ", ".join(dict.fromkeys(map(str, _folders(manifest))))
    names = f"available: {', '.join(profile_names(manifest)) or 'none'}"
    return Problem("profile", f"there is no profile {profile!r} ({names}; searched {folders})")


def profile_names(manifest: Path) -> list[str]:
    """Return the names of all available profiles."""
    return sorted({path.stem for folder in _folders(manifest) for path in folder.glob("*.yaml")})


def _folders(manifest: Path) -> list[Path]:
    """Return the folders to search: beside the manifest, in the current folder, and in the package or checkout."""
    return [manifest.parent / _FOLDER, Path(_FOLDER), _shipped(_FOLDER)]


def _shipped(name: str) -> Path:
    """Return a file or folder of the package, or of the checkout."""
    package = Path(localapi.__file__).parent
    return package / name if (package / name).exists() else package.parent / name


def first_manifest() -> str:
    """Return the text of a first manifest whose JSON Schema is beside it, in the file `SCHEMA`."""
    text = _shipped("models.yaml").read_text("utf-8")
    return text.replace(f"$schema={_FOLDER}/{SCHEMA}", f"$schema={SCHEMA}", 1)
