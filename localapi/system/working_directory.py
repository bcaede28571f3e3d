"""The folder in which the server was started, from which relative paths start.

If it is deleted and created again, the process stays in the deleted one, where no path can be resolved.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


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
        """Enter the folder that now has its name, if it was deleted."""
        try:
            Path.cwd()
        except OSError:
            with contextlib.suppress(OSError):
                os.chdir(self._started_in)
