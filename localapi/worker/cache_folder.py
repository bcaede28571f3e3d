"""Where workers keep what can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The system's place for caches (https://specifications.freedesktop.org/basedir-spec), and ours in it.

    It may not be there yet. Raises RuntimeError where nobody knows the user's home.
    """
    home = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "localapi" / name
