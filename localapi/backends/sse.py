"""Server-sent events from bytes, however they are split. See https://html.spec.whatwg.org/#parsing-an-event-stream."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

MAX_EVENT_BYTES: Final = 64 * 2**20


class TooLong(ValueError):
    """An event never ends."""


class Sent(Struct, frozen=True):
    """Data of an event, or a comment between events."""

    data: bytes
    is_comment: bool = False


class EventDecoder:
    """Decoder of one stream."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        """Start of an incomplete line."""
        self._rest_bytes = 0
        self._held = False
        """True if that line ends with a carriage return, which a newline may follow."""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, received: bytes) -> list[Sent]:
        """Return the events that these bytes complete. Raise TooLong."""
        if self._begun and not self._held and b"\n" not in received and b"\r" not in received:
            self._keep(received)  # so that a long line is not scanned again and again
            return []
        self._rest.append(received)
        text = b"".join(self._rest)
        if not self._begun and len(text) >= len(codecs.BOM_UTF8):
            self._begun = True
            text = text.removeprefix(codecs.BOM_UTF8)
        held = b""
        if b"\r" in text:
            if text.endswith(b"\r"):  # its \n may follow
                text, held = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = text.split(b"\n")
        rest = lines.pop()
        self._rest.clear()
        self._rest_bytes = 0
        self._held = bool(held)
        self._keep(rest + held)
        return self._read(lines)

    def end(self) -> list[Sent]:
        """Return the last event, if its blank line is missing."""
        last = b"".join(self._rest).rstrip(b"\r")
        self._rest.clear()
        return self._read([last, b""])

    def _keep(self, rest: bytes) -> None:
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        if self._rest_bytes + self._size > MAX_EVENT_BYTES:
            raise TooLong(f"an event of more than {MAX_EVENT_BYTES // 2**20} MB")

    def _read(self, lines: Iterable[bytes]) -> list[Sent]:
        found: list[Sent] = []
        for line in lines:
            if not line:
                if self._data:
                    found.append(Sent(b"\n".join(self._data)))
                    self._data, self._size = [], 0
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
                self._size += len(value)
            elif name == b"error" and value.startswith(b"{"):  # llama-server before 2026 sends errors like this
                found.append(Sent(b'{"error":%b}' % value))
            elif not name:
                found.append(Sent(value, is_comment=True))
        return found
