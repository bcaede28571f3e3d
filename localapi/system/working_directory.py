"""The folder in which the server was started, to which relative paths belong.

Whoever deletes it and makes it again leaves the process in the one that is gone, where no path leads anywhere.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class WorkingFolder:
    """Of this process."""

    def __init__(self) -> None:
        self._started_in = Path.cwd()

    @property
    def path(self) -> Path:
        """Its absolute path; where it is gone, the one that it had."""
        try:
            return Path.cwd()
        except OSError:
            return self._started_in

    def return_to_it(self) -> None:
        """Enter the one that has its name now, if it is gone."""
        try:
            Path.cwd()
        except OSError:
            with contextlib.suppress(OSError):
                os.chdir(self._started_in)
