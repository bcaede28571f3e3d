"""Decide how many tokens each row brings to the next step, and count the outcome."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from localapi.worker.llm.speculation.draft import DraftedRow, Drafter
from localapi.worker.llm.speculation.lookup import HitRates

KEPT: Final = 15
"""Number of measurements of a width that are kept."""
ENOUGH: Final = 5
"""Number of measurements of single tokens before anything else is tried."""
HOPED: Final = 0.08
"""Share of a step's time that each further token is assumed to cost until a width has been tried."""
FIRST_WIDTH: Final = 4
"""Width that is tried first. Each next one is up to twice as wide, because a bad attempt keeps everybody waiting."""
MARGIN: Final = 1.05
"""Factor over the speed of single tokens that a step must promise."""
RETRY: Final = 128
"""Opportunities after which the next wider step is measured again, because its times may be from a bad moment."""
WIDTHS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class StepCosts:
    """Measurements of one model."""

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

        `gains` are the tokens that a step is expected to give, by its width from 1 on. No step may take longer than
        `longest_seconds` beyond the time of single tokens. `guess_seconds` is the time that each further token takes
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


LONGEST_GUESS: Final = 15
LONGEST_DRAFT: Final = 7
MOST_LOGITS: Final = 64_000_000
"""Maximum numbers that the model may compute in one step, which limits its width for many rows of a large vocabulary.
"""


@dataclass(frozen=True)
class Proposal:
    """Tokens that may follow a row's next token."""

    tokens: Sequence[int] = ()
    forced: int = 0
    """Number of them, the first ones, that are certain."""
    chances: Sequence[float] = ()
    """Probability of each token to be kept."""
    draft: DraftedRow | None = None
    """Row of the draft model that guesses the tokens after the forced ones, if it does."""

    def cut(self, count: int) -> Proposal:
        return Proposal(self.tokens[:count], min(self.forced, count), self.chances[:count], self.draft)


@dataclass
class Speculation:
    """Knowledge about one model: times of its steps, rates of right guesses, and counts."""

    vocabulary: int
    """Width of its logits."""
    longest_seconds: float
    """Time that a step may take beyond one of single tokens, because other rows wait for it."""
    costs: StepCosts = field(default_factory=StepCosts)
    rates: HitRates = field(default_factory=HitRates)
    drafter: Drafter | None = None
    forced: int = 0
    """Tokens that a grammar forced, computed together with the previous token."""
    proposed: int = 0
    """Guessed tokens that the model has checked."""
    accepted: int = 0
    """Guessed tokens that the model would have chosen too."""

    def width(self, chances: Sequence[Sequence[float]], drafted: int = 0) -> int:
        """Return how many tokens the row with the most should bring.

        `chances` are those of each row's proposed tokens. `drafted` is the number of rows whose tokens the draft model
        would have to guess first.
        """
        rows, longest = len(chances), max(map(len, chances))
        longest = min(longest + 1, WIDTHS[-1], max(1, MOST_LOGITS // (rows * self.vocabulary)))
        if longest == 1:
            return 1
        sums = [0.0] * (longest - 1)
        for row in chances:
            for i, chance in enumerate(row[: longest - 1]):
                sums[i] += chance
        gains = [rows + kept for kept in accumulate(sums, initial=0.0)]
        waits = self.longest_seconds if rows > 1 else float("inf")
        guess_seconds = drafted * self.drafter.seconds if self.drafter is not None else 0.0
        return self.costs.best(gains, rows, longest_seconds=waits, guess_seconds=guess_seconds)

    def count(self, proposal: Proposal, kept: int) -> None:
        """Count a proposal of which the first `kept` tokens were kept."""
        self.forced += min(kept, proposal.forced)
        self.proposed += len(proposal.tokens) - proposal.forced
        right = max(0, kept - proposal.forced)
        self.accepted += right
        if proposal.draft is not None and self.drafter is not None:
            self.drafter.note(proposal.draft, len(proposal.tokens) - proposal.forced, right)
