"""Pronunciations of words that a user has defined. This module knows where a word ends, but no phonemes.

# One entry per line: a word, a colon, a space, and how to say it. Lines that begin with # are comments.
GIF: jif
kubectl: cube control
C++: C plus plus
重庆: 崇庆
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 4 * 1024 * 1024

_SEPARATOR = re.compile(r":\s")
_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3005", "\u30ff"),  # kana and some signs
    ("\u3400", "\u4dbf"),
    ("\u4e00", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U000323af"),
)
"""Scripts that write words without separators."""


class BadLexicon(Exception):
    """Invalid entries. The message has one line per problem, with its line number in the file."""


@dataclass(frozen=True, slots=True)
class Substitution:
    """Replacement for the characters from `start` to `end`."""

    start: int
    end: int
    said: str


class Lexicon:
    """Entries to apply to any number of texts.

    A key with a capital letter matches only itself, any other key in any capitalization. Keys match whole words, or
    anywhere in scripts without spaces. The longest key is preferred, and replacements are not searched again. The time
    depends on the length of the text, not on the number of entries.
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        """Create a lexicon. Raise BadLexicon for an empty key."""
        self.entries = dict(entries)
        self._exact: dict[str, str] = {}
        self._folded: dict[str, str] = {}
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for written, said in entries.items():
            key = unicodedata.normalize("NFC", written.strip())
            if not key:
                raise BadLexicon("an entry has no word")
            (self._folded if key == _fold(key) else self._exact)[key] = said
            lengths[_fold(key[0])].add(len(key))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def __len__(self) -> int:
        return len(self._exact) + len(self._folded)

    def apply(self, text: str) -> str:
        """Return the text with all replacements."""
        parts, at = [], 0
        for found in self.applied(text):
            parts += [text[at : found.start], found.said]
            at = found.end
        return "".join([*parts, text[at:]])

    def applied(self, text: str) -> list[Substitution]:
        """Return the replacements that `apply` makes, in text order."""
        found: list[Substitution] = []
        folded, at = _fold(text), 0
        while at < len(text):
            substitution = self._at(text, folded, at)
            if substitution is None:
                at += 1
            else:
                found.append(substitution)
                at = substitution.end
        return found

    def _at(self, text: str, folded: str, start: int) -> Substitution | None:
        lengths = self._lengths.get(folded[start])
        if lengths is None or not _is_border(text, start):
            return None
        for length in lengths:
            end = start + length
            if end > len(text):
                continue
            said = self._exact.get(text[start:end])
            if said is None:
                said = self._folded.get(folded[start:end])
            if said is not None and _is_border(text, end):
                return Substitution(start, end, said)
        return None


def read_lexicon(path: Path) -> Lexicon:
    """Read the entries of a file. Raise BadLexicon with all of its problems."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise BadLexicon(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise BadLexicon(f"{path}: is larger than {MAX_BYTES // 1024 // 1024} MiB; is this the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadLexicon(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    return Lexicon(_entries(text, path))


def _entries(text: str, path: Path) -> dict[str, str]:
    entries: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, _, said = (part.strip() for part in _SEPARATOR.sub("\n", line.strip(), count=1).partition("\n"))
        key = unicodedata.normalize("NFC", word)
        if not (key and said):
            problems.append(f"{path}:{number}: should be a word, a colon, a space and how to say it, as in `GIF: jif`")
        elif key in lines:
            problems.append(f"{path}:{number}: {key!r} is already on line {lines[key]}")
        else:
            entries[key], lines[key] = said, number
    if problems:
        raise BadLexicon("\n".join(problems))
    return entries


def _fold(text: str) -> str:
    """Return the text in lower case, except letters whose lower case has another length, so that offsets stay valid."""
    small = text.lower()
    return small if len(small) == len(text) else "".join(_fold_one(char) for char in text)


def _fold_one(char: str) -> str:
    small = char.lower()
    return small if len(small) == 1 else char


def _is_border(text: str, at: int) -> bool:
    """Return True if a word may begin or end before this character."""
    if at in (0, len(text)):
        return True
    before, after = text[at - 1], text[at]
    if unicodedata.category(after)[0] == "M":
        return False
    return not (_is_of_word(before) and _is_of_word(after)) or _is_unspaced(before) or _is_unspaced(after)


def _is_of_word(char: str) -> bool:
    return char.isalnum() or char == "_" or unicodedata.category(char)[0] == "M"


def _is_unspaced(char: str) -> bool:
    return any(low <= char <= high for low, high in _UNSPACED)
