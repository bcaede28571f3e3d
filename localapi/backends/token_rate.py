"""Measure the current speed of a model in tokens per second, where tokens arrive."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 3.0


class Speed:
    """Speed of one engine. Time spent on waiting and reading prompts does not count until tokens arrive again."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, int]] = deque()
        """Times by the monotonic clock, and the total of tokens then, within the window."""

    def note(self, tokens: int) -> None:
        """Note the total of generated tokens since the model was loaded."""
        now = time.monotonic()
        if self._told and tokens == self._told[-1][1]:
            return
        if self._told and now - self._told[-1][0] > WINDOW_SECONDS:
            self._told.clear()
        self._told.append((now, tokens))
        while now - self._told[0][0] > WINDOW_SECONDS:
            self._told.popleft()

    def forget(self) -> None:
        """Reset the speed, as no answer is being generated."""
        self._told.clear()

    @property
    def now(self) -> float:
        """Return tokens per second; 0 if none were generated lately."""
        at = time.monotonic()
        while self._told and at - self._told[0][0] > WINDOW_SECONDS:
            self._told.popleft()
        if len(self._told) < 2:  # noqa: PLR2004  # a speed needs two points
            return 0.0
        (began, first), (_, last) = self._told[0], self._told[-1]
        return (last - first) / max(at - began, 1e-3)
