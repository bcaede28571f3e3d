"""How often a model may be started again: at once after a failure or two, then after growing pauses.

Knows failures and successes, and nothing of what fails.
"""

from __future__ import annotations

import time
from typing import Final

TOLERATED: Final = 3
"""Failures in a row that lead to a pause: loads that failed, workers that ended by themselves."""
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0


class Restarts:
    """Of one instance."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self._until = 0.0

    @property
    def seconds_left(self) -> float:
        """Of the pause; 0 where there is none."""
        return max(0.0, self._until - time.monotonic())

    @property
    def cooling_down_until(self) -> float | None:
        """The end of the pause in Unix time."""
        return time.time() + self.seconds_left if self.seconds_left else None

    def failed(self) -> None:
        """Count a failure."""
        self.in_a_row += 1
        if (more := self.in_a_row - TOLERATED) >= 0:
            pause = FIRST_PAUSE_SECONDS * 2 ** min(more, 30)
            self._until = time.monotonic() + min(pause, LONGEST_PAUSE_SECONDS)

    def reset(self) -> None:
        """Something has worked, or somebody has changed something: the next failure is the first."""
        self.in_a_row, self._until = 0, 0.0
