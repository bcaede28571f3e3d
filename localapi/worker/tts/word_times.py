"""When the words of a text are said, from what an engine tells of its parts.

Engines count words in their own way: espeak-ng says "of the" as one and "42" as two. Here a word is what stands between
blanks, and each ideograph and kana for itself.
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
    """A part of the text that was said for itself."""

    position: int
    """Of one of its characters in the text."""
    start_seconds: float
    end_seconds: float


def said_words(text: str, pieces: Iterable[SpokenPiece]) -> list[WordTime]:
    """The words of the text in order.

    A word that has no piece of its own was said together with the one before it, and they share the time by their
    letters; what has neither pieces nor letters was not said.
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
    shared = groupby(said, lambda index: owners[max(bisect_right(owners, index) - 1, 0)])
    return [word for owner, group in shared for word in _share([words[i][0] for i in group], *spans[owner])]


def _share(words: Sequence[str], start: float, end: float) -> Iterable[WordTime]:
    """Words that take a span of time together."""
    per_letter = (end - start) / sum(map(len, words))
    for word in words:
        until = start + len(word) * per_letter
        yield WordTime(word, round(start, 3), round(until, 3))
        start = until


COMPARED = 64
"""Phonemes at a time: comparing takes the product of the lengths."""
BEHIND = 32
"""How many phonemes more the text may have there than its words."""
OTHER = 0.9
"""What another phoneme costs; one too many or too few costs 1."""


def paired(read: Sequence[str], said: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Which phonemes of both are the same or stand in for each other, in order."""
    passed = 0
    for start in range(0, len(read), COMPARED):
        some = read[start : start + COMPARED]
        window = said[passed : passed + len(some) + BEHIND]
        pairs = _pairs(some, window)
        yield from ((start + at, passed + among) for at, among in pairs)
        passed += pairs[-1][1] + 1 if pairs else 0


def _pairs(read: Sequence[str], said: Sequence[str]) -> list[tuple[int, int]]:
    """The cheapest way through both (https://en.wikipedia.org/wiki/Wagner-Fischer_algorithm); `said` may go on."""
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
