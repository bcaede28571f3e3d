"""The folder for files that workers can create again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """Return our folder in the user's cache (https://specifications.freedesktop.org/basedir-spec).

    It need not exist yet. None if the user has no home. A relative XDG_CACHE_HOME is ignored.
    """
    given = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "")
    for home in (given, "~/.cache"):
        path = os.path.expanduser(home)
        if os.path.isabs(path):
            return Path(path) / "localapi" / name
    return None
