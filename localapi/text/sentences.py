"""Split a text into segments for an engine, at the ends of sentences, without changing a character.

Sentences are found by sentencex (https://github.com/wikimedia/sentencex): it is maintained (pysbd and blingfire are
not), knows abbreviations of some 300 languages, is compiled (4,096 characters in 0.1 ms) and returns its input
unchanged. Two faults of 1.0.32 are avoided: white space other than " " can make it panic, and long runs of quotation
marks take quadratic time.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import sentencex  # type: ignore[import-untyped]

from localapi.text.clean import is_speakable
from localapi.text.writing_systems import HAN, KANA, is_wide, language_of, reach, script_of_letter, weight

_WINDOW = 4096
"""Characters per call of sentencex."""
_WRAPPED = 50
"""Minimum length of a line that was wrapped by an editor, if the next line begins with a lower-case letter."""
_FRAGMENT = 20
"""Weight below which a piece sounds odd by itself ("Hi.", "1.") and is joined to its neighbour."""
_ROOM = (50, 100, 200)
"""Weight up to which sentences are joined: in the first segment, the second, and all later ones."""
_LONG_START = 120
"""Weight above which the first sentence is cut: after a clause if possible, otherwise between words."""
_EARLY_WORDS = 60
"""Weight of the first part of a sentence without clauses."""
_HEAVIEST = 400
"""Maximum weight of a segment; half a minute of speech."""

_LINE = re.compile("[^\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
_BREAKS = frozenset({"\n", "\r\n", "\r"})
_NOT_A_SPACE = re.compile(r"[^\S ]|[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")
_CLAUSE = re.compile(r"[,;:)\]\u2013\u2014](?=\s)|[\uff0c\u3001\uff1b\uff1a\u060c\u061b]|(?<=\s)[-\u2013\u2014](?=\s)")
_SAMPLE = 500
"""Characters of a paragraph for guessing its language."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Text for one call of an engine, with its offsets in characters."""

    text: str
    start: int
    end: int
    goes_on: bool = False
    """True if its last sentence continues in the next segment."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Sentence or a part of one, with the white space after it."""

    start: int
    end: int
    opens: bool
    """True if it is the first in its paragraph."""
    closes: bool
    """True if it is the last in its paragraph."""
    goes_on: bool
    """True if its sentence continues in the next piece."""
    says: bool
    """True if it contains anything to say."""


def sentences(text: str, *, language: str | None = None, longest: int = 400, apart: bool = False) -> list[Segment]:
    """Split a text into segments of at most `longest` characters and half a minute of speech.

    Only white space is omitted between segments. `language` is a BCP 47 tag; None guesses it from the script of each
    paragraph. A newline ends a sentence, except in wrapped prose.

    Sentences are joined because each call has a cost and its own melody. The first segments are small, each up to twice
    the one before, so that the first is heard soon, and an engine at twice the speed of speech does not fall silent
    after it. Paragraphs are not joined, because there is a pause between them. With `apart`, sentences are not joined
    either; long ones are still cut. A segment has nothing to say only if the whole text has nothing, or if `longest`
    leaves no room.
    """
    if longest < 1:
        raise ValueError(f"longest should be at least 1, not {longest}")
    found: list[_Piece] = []
    for start, end in _paragraphs(text):
        found += _pieces(text, start, end, language=language, longest=longest, first=not found)
    segments = []
    for piece in _joined(text, found, longest, apart=apart):
        whole = text[piece.start : piece.end]
        said = whole.strip()
        if said:
            start = piece.end - len(whole.lstrip())
            segments.append(Segment(said, start, start + len(said), piece.goes_on))
    return segments


def shares(text: str, *, language: str | None = None) -> list[tuple[str, float]]:
    """Return the sentences of a text, each with its estimated share of the total time."""
    found: list[str] = []
    begun = 0
    for segment in sentences(text, language=language, apart=True):
        if not segment.goes_on:
            found.append(text[begun : segment.end].strip())
            begun = segment.end
    whole = sum(map(weight, found))
    return [(sentence, weight(sentence) / whole) for sentence in found]


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """Return the spans of lines that are not blank; lines of wrapped prose are joined."""
    found: list[tuple[int, int]] = []
    before = ""
    for line in _LINE.finditer(text):
        words = line[0].strip()
        if not words:
            continue
        follows = found and text[found[-1][1] : line.start()] in _BREAKS
        if follows and len(before) >= _WRAPPED and words[0].islower():
            found[-1] = (found[-1][0], line.end())
        else:
            found.append((line.start(), line.end()))
        before = words
    return found


def _pieces(text: str, start: int, end: int, *, language: str | None, longest: int, first: bool) -> Iterator[_Piece]:
    """Yield the sentences of one paragraph, and the parts of long ones."""
    tag = language.replace("_", "-").partition("-")[0].lower() if language else _language(text[start:end])
    ends = [*_cuts(text, start, end, _WINDOW), end]
    borders = {start, end}
    for window_start, window_end in itertools.pairwise([start, *ends]):
        borders.update(window_start + length for length in _lengths(text[window_start:window_end], tag))
    marks = sorted(borders)
    if first:
        marks[1:1] = _early_cuts(text, marks[0], marks[1])
    marks = [
        at
        for before, after in itertools.pairwise(marks)
        for at in (before, *_cuts(text, before, after, longest, _HEAVIEST))
    ]
    for before, after in itertools.pairwise([*marks, end]):
        says = is_speakable(text[before:after])
        yield _Piece(before, after, before == start, after == end, after not in borders, says)


def _lengths(text: str, language: str) -> Iterator[int]:
    """Yield the end of each sentence, from the start of the text."""
    spaced = _NOT_A_SPACE.sub(" ", text)
    try:
        found = sentencex.segment(language, spaced)
    except BaseException as error:
        # A panic in Rust is not an Exception, so the error handling of requests would not see it.
        if type(error).__name__ != "PanicException":
            raise
        found = []
    return itertools.accumulate(map(len, found))


def _language(text: str) -> str:
    """Return a language for the script of most letters. Text with any kana is Japanese."""
    if text.isascii():
        return "en"
    counts = Counter(filter(None, map(script_of_letter, text[:_SAMPLE])))
    if counts[KANA]:
        counts[KANA] += counts.pop(HAN, 0)
    return language_of(text, max(counts, key=counts.__getitem__, default=""), None) or "en"


def _early_cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Yield the cuts of a long first sentence, whose parts grow as the segments do."""
    if weight(text[start:end]) <= _LONG_START:
        return
    at = _last(_CLAUSE, text, start, reach(text, start, end, _LONG_START))
    if at is None:
        high = reach(text, start, end, _EARLY_WORDS)
        at = _last(_SPACES, text, start, high)
        if at is None and is_wide(text[high]) and not _is_inside(text, high):
            at = high  # Chinese and Japanese have no spaces; a run of other letters may be one word
    room = 2 * _EARLY_WORDS
    while at is not None:
        yield at
        high = reach(text, at, end, room)
        room *= 2
        if high == end or room > 2 * _HEAVIEST:
            return
        at = _cut(text, at + (high - at) // 2, high, high)


def _last(pattern: re.Pattern[str], text: str, start: int, end: int) -> int | None:
    """Return the end of the last match that leaves no fragment before it; None if there is none."""
    ends = [match.end() for match in pattern.finditer(text, start, end)]
    return next((at for at in reversed(ends) if weight(text[start:at]) >= _FRAGMENT), None)


def _cuts(text: str, start: int, end: int, longest: int, heaviest: int | None = None) -> Iterator[int]:
    """Yield cuts of a span into parts of similar length, each of at most `longest` characters and `heaviest` weight."""
    while True:
        parts = math.ceil((end - start) / longest)
        high = start + longest
        if heaviest is not None:
            parts = max(parts, math.ceil(weight(text[start:end]) / heaviest))
            high = min(high, reach(text, start, end, heaviest))
        if parts <= 1:
            return
        aim = start + (end - start) // parts
        start = _cut(text, start + max(1, (high - start) // 4), high, aim)
        yield start


def _cut(text: str, low: int, high: int, aim: int) -> int:
    """Return the best cut from `low` to `high`: after a clause, else after a space, else between two characters."""
    for pattern in (_CLAUSE, _SPACES):
        if places := [match.end() for match in pattern.finditer(text, low - 1, high) if match.end() >= low]:
            return min(places, key=lambda place: abs(place - aim))
    return next((at for at in range(high, low - 1, -1) if not _is_inside(text, at)), high)


def _is_inside(text: str, at: int) -> bool:
    """Return True if a cut would split a visible character, by a few rules of https://unicode.org/reports/tr29/."""
    before, after = text[at - 1], text[at]
    return (
        unicodedata.category(after)[0] == "M"
        or before == "\u200d"
        or after in "\u200c\u200d"
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or "\U000e0020" <= after <= "\U000e007f"
        or ("\U0001f1e6" <= before <= "\U0001f1ff" and "\U0001f1e6" <= after <= "\U0001f1ff")
        or "\u1160" <= after <= "\u11ff"
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
        or before + after == "\r\n"
    )


def _joined(text: str, pieces: Sequence[_Piece], longest: int, *, apart: bool) -> list[_Piece]:
    """Join short pieces of one paragraph, and pieces without anything to say with their neighbours."""
    joined: list[_Piece] = []
    for piece in pieces:
        room = None if apart else _ROOM[min(len(joined), len(_ROOM)) - 1]
        if joined and _belong(text, joined[-1], piece, longest=longest, room=room):
            last = joined[-1]
            says = last.says or piece.says
            joined[-1] = replace(last, end=piece.end, closes=piece.closes, goes_on=piece.goes_on, says=says)
        else:
            joined.append(piece)
    return joined


def _belong(text: str, last: _Piece, piece: _Piece, *, longest: int, room: int | None) -> bool:
    whole = text[last.start : piece.end].strip()
    if len(whole) > longest or weight(whole) > _HEAVIEST:
        return False
    if not (last.says and piece.says):
        return True
    if piece.opens or room is None:
        return False
    before, after = text[last.start : last.end].strip(), text[piece.start : piece.end].strip()
    if weight(before) < _FRAGMENT or (piece.closes and weight(after) < _FRAGMENT):
        return True
    return weight(whole) <= room
