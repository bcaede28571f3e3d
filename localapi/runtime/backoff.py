"""Pauses between attempts to load a model: none after the first failures, then growing ones.

This module knows failures and successes, but not what fails.
"""

from __future__ import annotations

import time
from typing import Final

from localapi.system.timer import growing_pause

TOLERATED: Final = 3
"""Consecutive failures that lead to a pause: loads that failed, workers that ended by themselves."""
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0


def pause_seconds(failures: int) -> float:
    """Return the pause after this many consecutive failures; 0 if there is none."""
    if failures < TOLERATED:
        return 0.0
    return growing_pause(failures - TOLERATED + 1, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)


class Backoff:
    """Failures of one instance."""

    def __init__(self) -> None:
        self.failures = 0
        """Number of consecutive failures."""
        self._until = 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds of the pause that are left; 0 if there is none."""
        return max(0.0, self._until - time.monotonic())

    @property
    def paused_until(self) -> float | None:
        """End of the pause in Unix time."""
        return time.time() + self.seconds_left if self.seconds_left else None

    def failed(self) -> None:
        """Count a failure."""
        self.failures += 1
        self._until = time.monotonic() + pause_seconds(self.failures)

    def reset(self) -> None:
        """Forget all failures: something has worked, or somebody has changed something."""
        self.failures, self._until = 0, 0.0
