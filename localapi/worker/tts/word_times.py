"""When the words of a text are said, from what an engine tells of its parts.

Engines count words in their own way: espeak-ng says "of the" as one and "42" as two. Here a word is what stands between
blanks, and each ideograph and kana for itself.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from localapi.worker.protocol import SaidWord

_LONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_LONE}]|[^\s{_LONE}]+")


@dataclass(frozen=True)
class Piece:
    """A part of the text that was said for itself."""

    position: int
    """Of one of its characters in the text."""
    start_seconds: float
    end_seconds: float


def said_words(text: str, pieces: Iterable[Piece]) -> list[SaidWord]:
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


def _share(words: Sequence[str], start: float, end: float) -> Iterable[SaidWord]:
    """Words that take a span of time together."""
    per_letter = (end - start) / sum(map(len, words))
    for word in words:
        until = start + len(word) * per_letter
        yield SaidWord(word, round(start, 3), round(until, 3))
        start = until
