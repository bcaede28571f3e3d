"""Server-sent events out of bytes, however they are cut. See https://html.spec.whatwg.org/#parsing-an-event-stream."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

MAX_EVENT_BYTES: Final = 64 * 2**20


class TooLong(ValueError):
    """An event never ends."""


class Sent(Struct, frozen=True):
    """The data of an event, or a comment between events."""

    data: bytes
    is_comment: bool = False


class EventDecoder:
    """Decoder of one stream."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, received: bytes) -> Iterator[Sent]:
        """Yield what these bytes complete. Raise TooLong."""
        text = self._rest + received
        if not self._begun and len(text) >= len(codecs.BOM_UTF8):
            self._begun = True
            text = text.removeprefix(codecs.BOM_UTF8)
        held = b""
        if text.endswith(b"\r"):  # its \n may follow
            text, held = text[:-1], b"\r"
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        if len(rest) + self._size > MAX_EVENT_BYTES:
            raise TooLong(f"an event of more than {MAX_EVENT_BYTES // 2**20} MB")
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[Sent]:
        """Yield the last event, if its blank line is missing."""
        yield from self._line(self._rest.rstrip(b"\r"))
        yield from self._line(b"")
        self._rest = b""

    def _line(self, line: bytes) -> Iterator[Sent]:
        if not line:
            if self._data:
                yield Sent(b"\n".join(self._data))
            self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif not name:
            yield Sent(value, is_comment=True)
