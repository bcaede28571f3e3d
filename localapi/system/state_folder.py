"""The folder for files that the server keeps for its users."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def state_folder(name: str) -> Path | None:
    """Return our folder for the user's state (https://specifications.freedesktop.org/basedir-spec).

    It need not exist yet. None if the user has no home. A relative XDG_STATE_HOME is ignored.
    """
    usual = "~/Library/Application Support" if sys.platform == "darwin" else "~/.local/state"
    for home in (os.environ.get("XDG_STATE_HOME", ""), usual):
        path = os.path.expanduser(home)
        if os.path.isabs(path):
            return Path(path) / "localapi" / name
    return None
