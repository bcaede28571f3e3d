"""Find when the words of a text are spoken, from what a speech engine reports.

Engines count words in their own way: to espeak-ng, "of the" is one word and "42" is two. Here a word is text between
spaces, and each ideograph and kana is a word.

The text as spoken is also compared with its words as read one by one. The two differ a little: "of the" has another
vowel when it is spoken as one word, and a single "a" is read as a letter.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from localapi.worker.protocol import WordTime

_LONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_LONE}]|[^\s{_LONE}]+")


@dataclass(frozen=True)
class SpokenPiece:
    """Part of the text that was spoken by itself."""

    position: int
    """Position of one of its characters in the text."""
    start_seconds: float
    end_seconds: float


def said_words(text: str, pieces: Iterable[SpokenPiece]) -> list[WordTime]:
    """Return the times of the words of the text, in order.

    A word without its own piece was spoken together with the previous one, and they share the time in proportion to
    their letters. A word with neither pieces nor letters was not spoken.
    """
    words = list(WORD.finditer(text))
    starts = [word.start() for word in words]
    spans: dict[int, tuple[float, float]] = {}
    for piece in pieces:
        index = bisect_right(starts, piece.position) - 1
        if index >= 0:
            start, end = spans.get(index, (piece.start_seconds, piece.end_seconds))
            spans[index] = min(start, piece.start_seconds), max(end, piece.end_seconds)
    if not spans:
        return []
    said = [index for index, word in enumerate(words) if index in spans or any(map(str.isalnum, word[0]))]
    owners = sorted(spans)
    times: list[WordTime] = []
    for owner, group in groupby(said, lambda index: owners[max(bisect_right(owners, index) - 1, 0)]):
        together = [words[index][0] for index in group]
        start, end = spans[owner]
        per_letter = (end - start) / sum(map(len, together))
        for word in together:
            until = start + len(word) * per_letter
            times.append(WordTime(word, round(start, 3), round(until, 3)))
            start = until
    return times


COMPARED = 64
"""Phonemes compared at a time, because the cost is the product of the lengths."""
BEHIND = 32
"""Maximum phonemes that the text may have beyond those of its words."""
OTHER = 0.9
"""Cost of a different phoneme. One too many or too few costs 1."""


def paired(read: Sequence[str], said: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the phonemes of both that are the same or correspond to each other, in order."""
    passed = 0
    for start in range(0, len(read), COMPARED):
        some = read[start : start + COMPARED]
        window = said[passed : passed + len(some) + BEHIND]
        pairs = _pairs(some, window)
        yield from ((start + at, passed + among) for at, among in pairs)
        passed += pairs[-1][1] + 1 if pairs else 0


def _pairs(read: Sequence[str], said: Sequence[str]) -> list[tuple[int, int]]:
    """Return the cheapest alignment (https://en.wikipedia.org/wiki/Wagner-Fischer_algorithm); `said` may go on."""
    costs = [[float(among) for among in range(len(said) + 1)]]
    for phoneme in read:
        above = costs[-1]
        row = [above[0] + 1]
        for among, other in enumerate(said):
            same = above[among] + (0 if phoneme == other else OTHER)
            row.append(min(same, above[among + 1] + 1, row[among] + 1))
        costs.append(row)
    last = costs[-1]
    at, among = len(read), min(range(len(said), -1, -1), key=last.__getitem__)
    pairs = []
    while at and among:
        here = costs[at][among]
        if here == costs[at - 1][among] + 1:
            at -= 1
        elif here == costs[at][among - 1] + 1:
            among -= 1
        else:
            at, among = at - 1, among - 1
            pairs.append((at, among))
    return pairs[::-1]
