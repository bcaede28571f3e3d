"""Guess a row's next tokens with a small model of the same vocabulary.

It has its own caches for each row. They catch up with the row when a guess is requested: wrong guesses are removed, and
the row's new tokens are computed, a long prompt in pieces. Guesses are the small model's likeliest tokens.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import mlx.core as mx

from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.speculation.lookup import HitRates

FIRST_RATES: Final = (0.7, 0.7, 0.7, 0.7)
LEAST_PIECE: Final = 32
"""Tokens of a row's text that are computed at once, however slow the draft model is."""
MOST_PIECE: Final = 512
MEASURED: Final = 15


@dataclass(eq=False)
class DraftedRow:
    """The draft model's side of one row."""

    rates: HitRates
    caches: list[Any] | None = None
    """None before the first guess."""
    tokens: list[int] = field(default_factory=list)
    """Tokens in the caches; the last ones may be wrong guesses."""
    confirmed: int = 0
    """Number of first tokens that are known to be the row's."""

    def chances(self, count: int) -> list[float]:
        """Return for each of this many guesses the probability that it and all before it are right."""
        chance, chances = 1.0, []
        for i in range(count):
            chance *= self.rates.rate(i)
            chances.append(chance)
        return chances


@dataclass(eq=False)
class Drafter:
    """Draft model."""

    model: Any
    empty: Sequence[Any]
    """Its caches before the first token."""
    prefixes: PrefixCache
    longest_seconds: float
    """Maximum time of a piece of a prompt, because other rows wait for it."""
    rates: HitRates = field(default_factory=lambda: HitRates(FIRST_RATES))
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))
    """The newest times of a guess."""
    _piece_seconds: float = 0.0
    """Time of the last piece per token."""

    @property
    def seconds(self) -> float:
        """Return the time of one guess; 0 if it is not known yet."""
        return sorted(self._times)[len(self._times) // 4] if self._times else 0.0

    def row(self) -> DraftedRow:
        """Return a new row. Nothing is computed before its first guess."""
        return DraftedRow(self.rates.copy())

    def follow(self, row: DraftedRow, tokens: Sequence[int]) -> bool:
        """Compute a piece of the row's text if most of it is missing. Return True if a guess can follow now."""
        if row.caches is None:
            hit = self.prefixes.fetch(tokens)
            row.caches = hit.caches if hit else copy.deepcopy(list(self.empty))
            row.tokens = list(tokens[: hit.length]) if hit else []
        self._confirm(row, tokens)
        missing = len(tokens) - len(row.tokens)
        piece = MOST_PIECE
        if self._piece_seconds:
            piece = min(MOST_PIECE, max(LEAST_PIECE, int(self.longest_seconds / self._piece_seconds)))
        if missing <= piece:
            return True
        started = perf_counter()
        new = list(tokens[len(row.tokens) : len(row.tokens) + piece])
        self.model(mx.array([new]), cache=row.caches)
        mx.eval([cache.state for cache in row.caches])
        self._piece_seconds = (perf_counter() - started) / piece
        row.tokens += new
        row.confirmed = len(row.tokens)
        return False

    def guess(self, row: DraftedRow, tokens: Sequence[int], count: int) -> list[int]:
        """Return guesses of the next tokens. `tokens` are all of the row's; `follow` must have returned True."""
        started = perf_counter()
        self._confirm(row, tokens)
        fed = list(tokens[len(row.tokens) :])
        inputs, guesses = mx.array([fed]), []
        for _ in range(count):
            logits = self.model(inputs, cache=row.caches)
            inputs = mx.argmax(logits[:, -1:, :], axis=-1)
            guesses.append(inputs)
        values: Any = mx.concatenate(guesses, axis=1).tolist()
        found: list[int] = values[0]
        row.tokens += [*fed, *found[:-1]]
        self._times.append((perf_counter() - started) / count)
        return found

    def note(self, row: DraftedRow, guesses: int, right: int) -> None:
        """Learn from guesses of which the first `right` ones were kept."""
        for i in range(min(guesses, right + 1)):
            row.rates.note(i, i < right)
            self.rates.note(i, i < right)

    def leave(self, row: DraftedRow, tokens: Sequence[int]) -> None:
        """Store the computed caches of a row that has ended, for one with the same prefix."""
        if row.caches is not None and tokens:
            self._confirm(row, tokens)
            self.prefixes.keep(row.tokens, row.caches)

    def _confirm(self, row: DraftedRow, tokens: Sequence[int]) -> None:
        """Remove from the caches what is not the row's text, and its last token, which is computed for the guess."""
        same, most = row.confirmed, min(len(row.tokens), len(tokens) - 1)
        while same < most and row.tokens[same] == tokens[same]:
            same += 1
        same = min(same, most)
        if same < len(row.tokens):
            for cache in row.caches or ():
                cache.trim(len(row.tokens) - same)
        del row.tokens[same:]
        row.confirmed = same
