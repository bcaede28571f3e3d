"""Decide how many tokens each row brings to the next step, and count what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from localapi.worker.llm.speculation.costs import WIDTHS, StepCosts
from localapi.worker.llm.speculation.draft import DraftedRow, Drafter
from localapi.worker.llm.speculation.lookup import HitRates

LONGEST_GUESS: Final = 15
LONGEST_DRAFT: Final = 7
MOST_LOGITS: Final = 64_000_000
"""Numbers that the model may compute in one step, which limits its width for many rows of a large vocabulary."""


@dataclass(frozen=True)
class Proposal:
    """Tokens that may follow a row's next token."""

    tokens: Sequence[int] = ()
    forced: int = 0
    """Number of them, the first ones, that are certain."""
    chances: Sequence[float] = ()
    """Probability of each token to stay."""
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
    """Tokens that a grammar forced, and that were computed with the token before."""
    proposed: int = 0
    """Guessed tokens that the model has checked."""
    accepted: int = 0
    """Guessed tokens that the model would have chosen, too."""

    def width(self, chances: Sequence[Sequence[float]], drafted: int = 0) -> int:
        """Return how many tokens the row with the most should bring.

        `chances`: of each row's proposed tokens. `drafted`: number of rows whose tokens the draft model would
        have to guess first.
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
        """Count a proposal of which the first `kept` tokens stayed."""
        self.forced += min(kept, proposal.forced)
        self.proposed += len(proposal.tokens) - proposal.forced
        right = max(0, kept - proposal.forced)
        self.accepted += right
        if proposal.draft is not None and self.drafter is not None:
            self.drafter.note(proposal.draft, len(proposal.tokens) - proposal.forced, right)
