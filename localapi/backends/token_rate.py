"""How fast a model writes at the moment: tokens per second over the last moments, measured where they arrive."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 3.0


class Speed:
    """Of one engine. Waiting and reading prompts do not count until something is written again."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, int]] = deque()
        """When so many tokens had been written, by the monotonic clock; the older ones are outside of the window."""

    def note(self, tokens: int) -> None:
        """So many have been written since the model was loaded."""
        now = time.monotonic()
        if self._told and tokens == self._told[-1][1]:
            return
        if self._told and now - self._told[-1][0] > WINDOW_SECONDS:
            self._told.clear()
        self._told.append((now, tokens))
        while now - self._told[0][0] > WINDOW_SECONDS:
            self._told.popleft()

    def forget(self) -> None:
        """Nothing is written any more."""
        self._told.clear()

    @property
    def now(self) -> float:
        """Tokens per second; 0 where nothing has been written lately."""
        at = time.monotonic()
        while self._told and at - self._told[0][0] > WINDOW_SECONDS:
            self._told.popleft()
        if len(self._told) < 2:  # noqa: PLR2004  # a speed needs two points
            return 0.0
        (began, first), (_, last) = self._told[0], self._told[-1]
        return (last - first) / max(at - began, 1e-3)
