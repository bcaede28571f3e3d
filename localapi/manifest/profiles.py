"""Where a profile is: by name in one of the folders `configs`, or by path."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

import localapi
from localapi.errors import ManifestError, Problem

_FOLDER = "configs"
_NAME = re.compile(r"[A-Za-z0-9_][\w-]*(\.[\w-]+)*")


def is_path(profile: str) -> bool:
    """Whether a profile is said by the path of its file, and not by its name."""
    return "/" in profile or profile.endswith((".yaml", ".yml"))


def profile_path(profile: str, manifest: Path) -> Path:
    """The profile's file, or where it would be looked for first.

    Raises ManifestError for a name that cannot be a file's.
    """
    if is_path(profile):
        return Path(profile)
    if not _NAME.fullmatch(profile):
        message = f"{profile!r} cannot be the name of a profile; give letters, digits, - and _, or a path with a slash"
        raise ManifestError([Problem("profile", message)])
    candidates = [folder / f"{profile}.yaml" for folder in _folders(manifest)]
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def unknown_profile(profile: str, path: Path, manifest: Path) -> Problem:
    """What to say where the profile's file does not exist."""
    if path == Path(profile):
        return Problem(str(path), "this profile does not exist; give a profile's name or the path of its file")
    found = profile_names(manifest)
    folders = ", ".join(dict.fromkeys(map(str, _folders(manifest))))
    names = f"found: {', '.join(found)}" if found else "found none"
    return Problem("profile", f"there is no profile {profile!r} ({names}; looked in {folders})")


def profile_names(manifest: Path) -> list[str]:
    """Those that can be named."""
    return sorted({path.stem for folder in _folders(manifest) for path in folder.glob("*.yaml")})


def _folders(manifest: Path) -> list[Path]:
    """Beside the manifest, in the current folder, and what is shipped: in the package, or in a checkout beside it."""
    package = Path(localapi.__file__).parent
    shipped = package / _FOLDER if (package / _FOLDER).is_dir() else package.parent / _FOLDER
    return [manifest.parent / _FOLDER, Path(_FOLDER), shipped]
