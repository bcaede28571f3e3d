"""Values of the manifest that a page may edit but not read, because they may be secrets.

A page gets a mark instead of such a value. A value that returns with the mark is kept unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from localapi.errors import CannotEdit
from localapi.manifest.excerpts import HIDDEN, PASSWORD, SECRET
from localapi.manifest.hidden import is_hidden
from localapi.manifest.lines import BREAK
from localapi.manifest.origin import KeyPath
from localapi.manifest.positions import Placed

_MARK: Final = re.compile(rf"{HIDDEN}(\d+)")
_FLAG: Final = re.compile(r"--?[\w-]*(?:secret|passw(?:or)?d|api[_-]?key|credential|token)s?(=.*)?", re.IGNORECASE)
"""Command-line flag whose value is a secret: --api-key, --token=abc."""
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_PLACES_OF_KEYS: Final = frozenset({"file", "models", "admin"})


def is_withheld(path: KeyPath, value: object) -> bool:
    """Return whether a page may not show the value at a path of keys."""
    text = str(value)
    if path[:2] == ("server", "api_keys"):
        option = path[3] if len(path) > 3 else None  # noqa: PLR2004  # server, api_keys, name
        return not (text.isascii() and text.isidentifier()) if option == "env" else option not in _PLACES_OF_KEYS
    if PASSWORD.search(text):
        return True
    if path[2:] == ("url",):
        return "?" in text
    return is_hidden(path) or (isinstance(path[-1], str) and SECRET.fullmatch(f"{path[-1]}:") is not None)


def marked(path: KeyPath, value: object) -> object:
    """Return a value with marks instead of possible secrets. In a list, a mark has the number of its item."""
    if isinstance(value, Mapping):
        return {key: marked((*path, key), part) for key, part in value.items()}
    if isinstance(value, list):
        return [_marked_item(path, value, index) for index in range(len(value))]
    return HIDDEN if value is not None and is_withheld(path, value) else value


def unmarked(value: object, before: object, path: KeyPath) -> object:
    """Return a value with marks replaced by the values in `before`. Raise CannotEdit if there is none."""
    if isinstance(value, Mapping):
        known = before if isinstance(before, Mapping) else {}
        return {key: unmarked(part, known.get(key), (*path, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_unmarked_item(part, before, path) for part in value]
    if value == HIDDEN:
        if before is None:
            raise CannotEdit(f"{'.'.join(map(str, path))}: {HIDDEN} stands for no known value; give the value")
        return before
    return value


def _marked_item(path: KeyPath, items: Sequence[object], index: int) -> object:
    value = items[index]
    if not isinstance(value, str):
        return marked((*path, index), value)
    before = items[index - 1] if index else ""
    after_flag = isinstance(before, str) and (found := _FLAG.fullmatch(before)) is not None and found[1] is None
    own = _FLAG.fullmatch(value)
    withheld = after_flag or (own is not None and own[1] is not None) or is_withheld((*path, index), value)
    return f"{HIDDEN}{index}" if withheld else value


def _unmarked_item(value: object, before: object, path: KeyPath) -> object:
    found = _MARK.fullmatch(value) if isinstance(value, str) else None
    known = before if isinstance(before, list) else []
    if found is None:
        return unmarked(value, None, path)
    if int(found[1]) >= len(known):
        raise CannotEdit(f"{'.'.join(map(str, path))}: {value} stands for no known value; give the value")
    return known[int(found[1])]


@dataclass(frozen=True)
class Span:
    """Part of a text."""

    start: int
    end: int


def spans(text: str, placed: Placed, path: KeyPath, start: int, end: int) -> list[Span]:
    """Return the possibly secret parts of a value, and of comments between two positions, in order."""
    found = list(_in_values(text, placed, path))
    for comment in _COMMENT.finditer(text, start, end):
        inside = any(span.start <= comment.start() < span.end for span in found)
        if not inside and (SECRET.search(comment[0]) or PASSWORD.search(comment[0])):
            found.append(Span(comment.start() + comment[0].index("#") + 1, comment.end()))
    return sorted(found, key=lambda span: span.start)


def hide(text: str, hidden: Sequence[Span], offset: int) -> str:
    """Return a part of a text with a numbered mark instead of each span; the part starts at `offset`."""
    for number in reversed(range(len(hidden))):
        span = hidden[number]
        text = f"{text[: span.start - offset]}{HIDDEN}{number}{text[span.end - offset :]}"
    return text


def reveal(text: str, original: str, hidden: Sequence[Span]) -> str:
    """Return an edited text with each mark replaced by the text that it hid.

    Raise CannotEdit for a mark that hid nothing.
    """

    def hid(mark: re.Match[str]) -> str:
        number = int(mark[1])
        if number >= len(hidden):
            raise CannotEdit(f"{mark[0]} stands for no known value; give the value")
        return original[hidden[number].start : hidden[number].end]

    return _MARK.sub(hid, text)


def _in_values(text: str, placed: Placed, path: KeyPath) -> Iterator[Span]:
    for member in placed.members:
        yield from _in_values(text, member.value, (*path, member.key))
    before = ""
    for index, item in enumerate(placed.items):
        written = text[item.start : item.end].strip("\"'")
        flag, after = _FLAG.fullmatch(written), _FLAG.fullmatch(before)
        own = flag is not None and flag[1] is not None
        if item.form == "scalar" and (own or (after is not None and after[1] is None)):
            yield Span(item.start, item.end)
        else:
            yield from _in_values(text, item, (*path, index))
        before = written
    if placed.form != "scalar" or placed.start == placed.end:
        return
    written = text[placed.start : placed.end]
    if is_withheld(path, written.strip("\"'")) and not BREAK.search(written):
        yield Span(placed.start, placed.end)
    elif is_withheld(path, written):  # a block scalar: its lines go together, its header is kept
        first = BREAK.search(written)
        yield Span(placed.start + (first.end() if first and written[0] in "|>" else 0), placed.end)
