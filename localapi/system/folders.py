"""Folders for files that outlive the server, for files that can be recreated, and the working folder."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def state_folder(name: str) -> Path | None:
    """Return our folder for the user's state (https://specifications.freedesktop.org/basedir-spec).

    It may not exist yet. None if the user has no home. A relative XDG_STATE_HOME is ignored.
    """
    usual = "~/Library/Application Support" if sys.platform == "darwin" else "~/.local/state"
    return _ours(name, os.environ.get("XDG_STATE_HOME", ""), usual)


def cache_folder(name: str) -> Path | None:
    """Return our folder in the user's cache, for files that can be recreated. See `state_folder`."""
    given = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "")
    return _ours(name, given, "~/.cache")


def _ours(name: str, *homes: str) -> Path | None:
    for home in homes:
        path = os.path.expanduser(home)
        if os.path.isabs(path):
            return Path(path) / "localapi" / name
    return None


class WorkingFolder:
    """Working directory of this process."""

    def __init__(self) -> None:
        self._started_in = Path.cwd()

    @property
    def path(self) -> Path:
        """Its absolute path, or its last known path if it was deleted."""
        try:
            return Path.cwd()
        except OSError:
            return self._started_in

    def return_to_it(self) -> None:
        """Enter the folder that has its name now, if it was deleted."""
        try:
            Path.cwd()
        except OSError:
            with contextlib.suppress(OSError):
                os.chdir(self._started_in)
