"""Measure what a step costs by its width, and choose the width that pays.

A step of several tokens costs little more than one of a single token if the time goes into reading weights, as on a GPU
and for float32 on a processor, and as many times more if it goes into arithmetic, as for quantised weights on a
processor. It depends on the number of rows, too. So nothing is assumed: widths that may pay are tried, and used while
they do. Times of a busy machine scatter upwards, hence the lower quartile. Knows numbers and no model.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

KEPT: Final = 15
"""Measurements of a width that count."""
ENOUGH: Final = 5
"""Measurements of single tokens without which nothing else is tried."""
HOPED: Final = 0.08
"""Part of a step's time that each further token costs in a width that was never tried."""
MARGIN: Final = 1.05
"""A step must promise so many times the speed of single tokens."""
RETRY: Final = 96
"""Opportunities that pass before a width that did not pay is tried again, because it was measured in a bad moment."""
WIDTHS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class StepCosts:
    """The measurements of one model."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int], deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        """The newest times, by rows and width."""
        self._passed: dict[int, int] = defaultdict(int)
        """Number of opportunities since the last try that did not pay, by rows."""

    def note(self, rows: int, width: int, seconds: float) -> None:
        """Add the measurement of a step in which each row had up to `width` tokens."""
        self._seconds[rows, _rounded(width)].append(seconds)

    def seconds(self, rows: int, width: int) -> float | None:
        """Return the time of a step; None if steps of single tokens are not known yet."""
        single = self._seconds.get((rows, 1), ())
        if len(single) < ENOUGH:
            return None
        width = _rounded(width)
        known = {each: _quartile(times) for each in WIDTHS if (times := self._seconds.get((rows, each)))}
        if width in known:
            return known[width]
        below = max(each for each in known if each < width)
        above = min((each for each in known if each > width), default=None)
        slope = HOPED * known[1]
        if above is not None:
            slope = max(0.0, (known[above] - known[below]) / (above - below))
        return known[below] + slope * (width - below)

    def best(self, gains: Sequence[float], rows: int, *, longest_seconds: float, guess_seconds: float = 0.0) -> int:
        """Return the width of the next step.

        `gains`: tokens that a step is expected to give, by its width from 1 on. No step may take longer than
        `longest_seconds`, apart from what single tokens take. `guess_seconds`: time that each further token takes
        before the step.
        """
        single = self.seconds(rows, 1)
        if single is None:
            return 1
        speeds = {1: MARGIN * gains[0] / single}
        for width in {min(each, len(gains)) for each in WIDTHS[1:]}:
            seconds = (self.seconds(rows, width) or single) + guess_seconds * (width - 1)
            if width > 1 and seconds <= single + longest_seconds:
                speeds[width] = gains[width - 1] / seconds
        best = max(speeds, key=lambda width: (speeds[width], -width))
        if best == 1 and len(gains) > 1:
            self._passed[rows] += 1
            if self._passed[rows] >= RETRY:
                self._passed[rows] = 0
                return max(speeds, key=lambda width: gains[width - 1] / width**0.5 if width > 1 else 0.0)
        return best


def _rounded(width: int) -> int:
    return next((each for each in WIDTHS if each >= width), WIDTHS[-1])


def _quartile(times: Sequence[float]) -> float:
    return sorted(times)[len(times) // 4]
