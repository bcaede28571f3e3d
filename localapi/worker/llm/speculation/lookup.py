"""Guess a row's next tokens from its own text: after the same tokens as before, the same tokens often follow.

A copied name, an edited file or the keys of a list of JSON objects are guessed well, and the only cost is looking up
three tokens. The rate of right guesses is counted even while none is used, because the pointer into the text moves
along with every token. This module knows tokens but no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MATCHED: Final = 3
"""Number of tokens that must be the same before a guess."""
LONGEST: Final = 32_768
"""Tokens at the end of a prompt that are looked up, because they are read at once: a millisecond for 2,000."""
RUNS: Final = (0, 1, 3, 7)
"""Length of a run of right guesses from which on the next one is counted separately. The longer the run, the likelier
the next."""
FIRST_RATES: Final = (0.4, 0.6, 0.8, 0.9)
LEARNING: Final = 0.1


class HitRates:
    """The share of right guesses, by the number of right ones before."""

    def __init__(self, rates: Sequence[float] = FIRST_RATES) -> None:
        self._rates = list(rates)

    def copy(self) -> HitRates:
        return HitRates(self._rates)

    def rate(self, run: int) -> float:
        return self._rates[_level(run)]

    def note(self, run: int, hit: bool) -> None:
        level = _level(run)
        self._rates[level] += LEARNING * (hit - self._rates[level])


class Lookup:
    """Text of one row, and the place in it that the row currently repeats, if there is one."""

    def __init__(self, tokens: Sequence[int], shared: HitRates) -> None:
        """Start a row with the rates of all rows of the model."""
        self._tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}
        """Index of the token that last followed these tokens."""
        self._at: int | None = None
        """Index of the token that is expected next."""
        self._run = 0
        self._shared = shared
        self._rates = shared.copy()
        for token in tokens[-LONGEST:]:
            self._append(token)

    @property
    def repeats(self) -> bool:
        """True if there is something to guess."""
        return self._at is not None

    def add(self, token: int, *, forced: bool = False) -> None:
        """Add the next token. A forced one is no evidence about guesses."""
        if self._at is not None:
            hit = self._tokens[self._at] == token
            if not forced:
                self._rates.note(self._run, hit)
                self._shared.note(self._run, hit)
            self._run += 1
            self._at = self._at + 1 if hit else None
        before = self._tokens[1 - MATCHED :]
        known = self._next.get((*before, token)) if self._at is None else None
        self._append(token)
        if known is not None:
            self._at, self._run = known, 0

    def guess(self, count: int) -> list[int]:
        """Return as many tokens as are expected next; none if nothing repeats."""
        if self._at is None:
            return []
        found = self._tokens[self._at : self._at + count]
        while len(found) < count:  # the text repeats itself up to its end, and is expected to continue so
            found.append(found[self._at - len(self._tokens) + len(found)])
        return found

    def chances(self, count: int, *, after: int = 0) -> list[float]:
        """Return for each of these guesses the probability that it and all before it are right.

        `after` is the number of first ones that are known to be right, and are left out.
        """
        chance, chances = 1.0, []
        for i in range(after, count if self.repeats else after):
            chance *= self._rates.rate(self._run + i)
            chances.append(chance)
        return chances

    def _append(self, token: int) -> None:
        self._tokens.append(token)
        self._next[tuple(self._tokens[-MATCHED:])] = len(self._tokens)


def _level(run: int) -> int:
    return sum(run >= start for start in RUNS) - 1
