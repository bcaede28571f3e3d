"""Text in pieces that an engine says one after the other. Knows sentences; keeps every character where it was.

The sentences are found by sentencex (https://github.com/wikimedia/sentencex), because it is maintained (pysbd and
blingfire are not), knows abbreviations of some 300 languages, is compiled (4,096 characters in 0.1 ms) and gives its
input back unchanged. It is guarded against two faults of 1.0.32: white space other than " " can make it panic, and
long runs of quotation marks take quadratic time.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sentencex  # type: ignore[import-untyped]

from localapi.text.clean import is_speakable
from localapi.text.weight import is_wide, reach, weight

_WINDOW = 4096
"""Characters that sentencex sees at once."""
_WRAPPED = 50
"""Characters: a line of this length whose next line begins with a small letter was broken by an editor."""
_FRAGMENT = 20
"""Below this weight a piece sounds odd on its own ("Hi.", "1.") and is said together with its neighbour."""
_ROOM = (50, 100, 200)
"""The weight up to which sentences are put together, for the first segment, the second, and all later ones."""
_LONG_START = 120
"""Over this weight the first sentence is cut: after a clause if there is one, else between words."""
_EARLY_WORDS = 60
"""The weight of what is said first of a sentence that has no clause."""
_HEAVIEST = 400
"""The weight up to which a sentence is said in one go; half a minute of speech."""

_LINE = re.compile("[^\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
_BREAKS = frozenset({"\n", "\r\n", "\r"})
_NOT_A_SPACE = re.compile(r"[^\S ]|[\ud800-\udfff]")
_SPACES = re.compile(r"\s+")
_CLAUSE = re.compile(r"[,;:)\]\u2013\u2014](?=\s)|[\uff0c\u3001\uff1b\uff1a\u060c\u061b]|(?<=\s)[-\u2013\u2014](?=\s)")
_SCRIPTS = {
    "LATIN": "en",
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARABIC": "ar",
    "ARMENIAN": "hy",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "MYANMAR": "my",
    "ETHIOPIC": "am",
}
"""By the first word of Unicode's names for letters, a language that ends its sentences as the script does."""
_SAMPLE = 500
"""Characters of a paragraph that are looked at to guess its language."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What an engine says in one call: `text` is what stands from `start` to `end`, offsets in characters."""

    text: str
    start: int
    end: int
    goes_on: bool = False
    """Whether its last sentence goes on in the next segment."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence or a part of one, with the white space behind it."""

    start: int
    end: int
    opens: bool
    """Whether it is the first of its paragraph."""
    closes: bool
    """Whether it is the last."""
    goes_on: bool
    """Whether its sentence goes on in the next piece."""
    says: bool
    """Whether there is anything to say in it."""


def sentences(text: str, *, language: str | None = None, longest: int = 400, apart: bool = False) -> list[Segment]:
    """The text as segments of at most `longest` characters; between them stands nothing but white space.

    What would take more than half a minute to say is cut, too.

    `language` is a BCP 47 tag; None guesses one from the script of each paragraph. A newline ends a sentence, except
    in prose that was wrapped to lines. Sentences are put together because each call has its price and its own melody;
    the first segments stay small, each up to twice the one before: the first is heard soon, and an engine of twice
    the speed of speech need not fall silent after it. Paragraphs stay apart, for the pause between them.
    `apart` leaves each sentence by itself; one that is long is still cut.
    A segment without anything to say exists only where the whole text has nothing, or where `longest` leaves no room.
    """
    if longest < 1:
        raise ValueError(f"longest should be at least 1, not {longest}")
    found: list[_Piece] = []
    for start, end in _paragraphs(text):
        found += _pieces(text, start, end, language=language, longest=longest, first=not found)
    segments = (_segment(text, piece) for piece in _joined(text, found, longest, apart=apart))
    return [segment for segment in segments if segment.text]


def shares(text: str, *, language: str | None = None) -> list[tuple[str, float]]:
    """The sentences of a text, each with its share of the time that all take, by their letters."""
    found: list[str] = []
    begun = 0
    for segment in sentences(text, language=language, apart=True):
        if not segment.goes_on:
            found.append(text[begun : segment.end].strip())
            begun = segment.end
    whole = sum(map(weight, found))
    return [(sentence, weight(sentence) / whole) for sentence in found]


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """Lines that hold something; lines of wrapped prose together."""
    found: list[tuple[int, int]] = []
    lines = [match for match in _LINE.finditer(text) if match[0].strip()]
    for before, line in zip([None, *lines], lines, strict=False):
        start = found.pop()[0] if before is not None and _runs_on(text, before, line) else line.start()
        found.append((start, line.end()))
    return found


def _runs_on(text: str, before: re.Match[str], after: re.Match[str]) -> bool:
    is_next = text[before.end() : after.start()] in _BREAKS
    return is_next and len(before[0].strip()) >= _WRAPPED and after[0].lstrip()[0].islower()


def _pieces(text: str, start: int, end: int, *, language: str | None, longest: int, first: bool) -> Iterator[_Piece]:
    """The sentences of one paragraph, the long ones cut."""
    tag = language.replace("_", "-").partition("-")[0].lower() if language else _guess(text[start:end])
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
    """How far each sentence reaches, from the start of the text."""
    spaced = _NOT_A_SPACE.sub(" ", text)
    try:
        found = sentencex.segment(language, spaced)
    except BaseException as error:
        # A panic in Rust is no Exception, and would pass whoever answers for a failed request.
        if type(error).__name__ != "PanicException":
            raise
        found = []
    return itertools.accumulate(map(len, found))


def _guess(text: str) -> str:
    """The language for the script of most letters. Japanese is what has any kana, however many Chinese signs."""
    if text.isascii():
        return "en"
    names = (unicodedata.name(char, "").partition(" ")[0] for char in text[:_SAMPLE] if char.isalpha())
    counts = Counter(_SCRIPTS.get(name, "en") for name in names)
    if counts["ja"]:
        counts["ja"] += counts.pop("zh", 0)
    return max(counts, key=counts.__getitem__, default="en")


def _early_cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Where a first sentence that takes long to say is cut: its parts grow as the segments do."""
    if weight(text[start:end]) <= _LONG_START:
        return
    at = _early_clause(text, start, end) or _early_word(text, start, end)
    room = 2 * _EARLY_WORDS
    while at is not None:
        yield at
        high = reach(text, at, end, room)
        room *= 2
        if high == end or room > 2 * _HEAVIEST:
            return
        at = _cut(text, at + (high - at) // 2, high, high)


def _early_clause(text: str, start: int, end: int) -> int | None:
    ends = [match.end() for match in _CLAUSE.finditer(text, start, reach(text, start, end, _LONG_START))]
    return next((at for at in reversed(ends) if weight(text[start:at]) >= _FRAGMENT), None)


def _early_word(text: str, start: int, end: int) -> int | None:
    high = reach(text, start, end, _EARLY_WORDS)
    spaces = [match.end() for match in _SPACES.finditer(text, start, high)]
    word = next((at for at in reversed(spaces) if weight(text[start:at]) >= _FRAGMENT), None)
    if word is None and is_wide(text[high]) and not _is_inside(text, high):
        return high  # Chinese and Japanese have no blanks; a run of other letters may be one word
    return word


def _cuts(text: str, start: int, end: int, longest: int, heaviest: int | None = None) -> Iterator[int]:
    """Places that cut a span into parts of at most `longest` characters and `heaviest`, about as long as each other."""
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
    """The best place from `low` to `high`: after a clause, else after a space, else between two characters."""
    for pattern in (_CLAUSE, _SPACES):
        if places := [match.end() for match in pattern.finditer(text, low - 1, high) if match.end() >= low]:
            return min(places, key=lambda place: abs(place - aim))
    return next((at for at in range(high, low - 1, -1) if not _is_inside(text, at)), high)


def _is_inside(text: str, at: int) -> bool:
    """Whether one character that a reader sees would be cut. A few rules of https://unicode.org/reports/tr29/."""
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
    """Short pieces of one paragraph put together, and pieces without anything to say put to their neighbours."""
    joined: list[_Piece] = []
    for piece in pieces:
        room = None if apart else _ROOM[min(len(joined), len(_ROOM)) - 1]
        if joined and _belong(text, joined[-1], piece, longest=longest, room=room):
            last = joined.pop()
            joined.append(
                _Piece(last.start, piece.end, last.opens, piece.closes, piece.goes_on, last.says or piece.says)
            )
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


def _segment(text: str, piece: _Piece) -> Segment:
    whole = text[piece.start : piece.end]
    start = piece.end - len(whole.lstrip())
    end = piece.start + len(whole.rstrip())
    return Segment(text[start:end], start, end, piece.goes_on)
