"""Measure what a step costs by its width, and choose the width that pays.

A step of several tokens costs little more than one of a single token if the time goes into reading weights, as on a GPU
and for float32 on a processor, and as many times more if it goes into arithmetic, as for quantised weights on a
processor. It depends on the number of rows, too. So nothing is assumed: widths that may pay are tried, and used while
they do. Times of a busy machine scatter upwards, hence the lower quartile. Knows numbers and no model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

KEPT: Final = 15
"""Measurements of a width that count."""
ENOUGH: Final = 5
"""Measurements of single tokens without which nothing else is tried."""
HOPED: Final = 0.08
"""Part of a step's time that each further token costs as long as no width was tried."""
FIRST_WIDTH: Final = 4
"""Width that is tried first. Each next one is up to twice as wide, because a bad try keeps everybody waiting."""
MARGIN: Final = 1.05
"""A step must promise so many times the speed of single tokens."""
RETRY: Final = 128
"""Opportunities after which the next wider step is measured again: its times may be those of a bad moment."""
WIDTHS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class StepCosts:
    """The measurements of one model."""

    def __init__(self) -> None:
        self._times: dict[tuple[int, int], deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
        """The newest times, by rows and width."""
        self._known: dict[int, dict[int, float]] = defaultdict(dict)
        """Lower quartiles of the times, by rows and then by width."""
        self._opportunities: dict[int, int] = defaultdict(int)
        """Number of opportunities for wide steps, by rows."""

    def note(self, rows: int, width: int, seconds: float) -> None:
        """Add the measurement of a step in which each row had up to `width` tokens."""
        width = WIDTHS[bisect_left(WIDTHS, width)]
        times = self._times[rows, width]
        times.append(seconds)
        if width > 1 or len(times) >= ENOUGH:
            self._known[rows][width] = sorted(times)[len(times) // 4]

    def seconds(self, rows: int, width: int) -> float | None:
        """Return the time of a step; None if steps of single tokens are not known yet."""
        known = self._known[rows]
        if 1 not in known:
            return None
        width = WIDTHS[bisect_left(WIDTHS, width)]
        if width in known:
            return known[width]
        below = max(each for each in known if each < width)
        above = min((each for each in known if each > width), default=None)
        if above is not None:
            slope = (known[above] - known[below]) / (above - below)
        elif below > 1:
            slope = (known[below] - known[1]) / (below - 1)
        else:
            slope = HOPED * known[1]
        return known[below] + max(0.0, slope) * (width - below)

    def best(self, gains: Sequence[float], rows: int, *, longest_seconds: float, guess_seconds: float = 0.0) -> int:
        """Return the width of the next step.

        `gains`: tokens that a step is expected to give, by its width from 1 on. No step may take longer than
        `longest_seconds`, apart from what single tokens take. `guess_seconds`: time that each further token takes
        before the step.
        """
        single = self.seconds(rows, 1)
        if single is None or gains[-1] < MARGIN * gains[0]:
            return 1
        tried = max(self._known[rows])
        widest = min(len(gains), FIRST_WIDTH if tried == 1 else 2 * tried)
        candidates = [width for width in WIDTHS[1:] if width < widest] + [widest]
        best, best_speed = 1, MARGIN * gains[0] / single
        for width in candidates:
            seconds = (self.seconds(rows, width) or single) + guess_seconds * (width - 1)
            speed = gains[width - 1] / seconds
            if speed > best_speed and seconds <= single + longest_seconds:
                best, best_speed = width, speed
        self._opportunities[rows] += 1
        if self._opportunities[rows] % RETRY == 0:
            return next((width for width in candidates if width > best), best)
        return best
