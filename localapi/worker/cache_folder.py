"""Where workers keep what can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """The system's place for caches (https://specifications.freedesktop.org/basedir-spec), and ours in it.

    It may not be there yet. None where nobody knows the user's home; a path that begins nowhere is no place, either.
    """
    given = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME", "")
    for home in (given, "~/.cache"):
        if os.path.isabs(place := os.path.expanduser(home)):
            return Path(place) / "localapi" / name
    return None
