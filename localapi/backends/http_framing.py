"""Framing of the body of an HTTP/1.1 reply: by its length, in chunks, or up to the end of its connection."""

from __future__ import annotations

import re
from typing import Final, Protocol

import httpx2

CUT_OFF: Final = "the reply is incomplete"
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_MAX_SIZE_LINE: Final = 1024
_MAX_TRAILER_BYTES: Final = 2**16


class Framing(Protocol):
    """End of a body, which is told from what follows it."""

    ended: bool

    def feed(self, data: bytes) -> bytes:
        """Return the content of the next bytes. Raise httpx2.RemoteProtocolError."""

    def close(self) -> None:
        """End the body when the connection ends. Raise httpx2.RemoteProtocolError if it is incomplete."""


class FixedLength:
    """Body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        content, self.rest = data[: self._left], data[self._left :]
        self._left -= len(content)
        self.ended = self._left == 0
        return content

    def close(self) -> None:
        raise httpx2.RemoteProtocolError(CUT_OFF)


class UntilClosed:
    """Body that ends with its connection."""

    ended = False
    rest = b""

    def feed(self, data: bytes) -> bytes:
        return data

    def close(self) -> None:
        self.ended = True


class Chunked:
    """Body in chunks (RFC 9112, 7.1)."""

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self._left = 0
        """Bytes of the current chunk still to come, including the line end after it; 0 between chunks."""
        self._in_trailers = False
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        data = self.rest + data if self.rest else data
        self.rest = b""
        found: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                at = self._chunk(data, at, found)
                continue
            end = data.find(b"\n", at)
            if end < 0:
                if len(data) - at > _MAX_SIZE_LINE:
                    raise httpx2.RemoteProtocolError("a chunk has no size")
                break
            self._line(data[at:end].rstrip(b"\r"))
            at = end + 1
        self.rest = data[at:]
        return found[0] if len(found) == 1 else b"".join(found)

    def close(self) -> None:
        raise httpx2.RemoteProtocolError(CUT_OFF)

    def _chunk(self, data: bytes, at: int, found: list[bytes]) -> int:
        """Take the received part of a chunk and of the line end after it. Return where it ends."""
        line_end = 2
        content = data[at : at + max(0, self._left - line_end)]
        if content:
            found.append(content)
            self._left -= len(content)
            at += len(content)
        after = data[at : at + self._left] if self._left <= line_end else b""
        if b"\r\n"[line_end - self._left :][: len(after)] != after:
            raise httpx2.RemoteProtocolError("a chunk is longer than its size")
        self._left -= len(after)
        return at + len(after)

    def _line(self, line: bytes) -> None:
        """Read a chunk's size or a trailer, which is ignored."""
        if self._in_trailers:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES:
                raise httpx2.RemoteProtocolError("its trailers are too long")
            self.ended = not line
            return
        found = _SIZE.fullmatch(line)
        if found is None:
            raise httpx2.RemoteProtocolError("a chunk has no size")
        size = int(found[1], 16)
        self._in_trailers = size == 0
        self._left = size + len(b"\r\n") if size else 0


def framing_of(method: str, status: int, headers: httpx2.Headers) -> FixedLength | UntilClosed | Chunked:
    """Return how the body of a reply ends (RFC 9112, 6.3). h11 has refused contradictory heads."""
    if method == "HEAD" or status in (204, 304):
        return FixedLength(0)
    if "transfer-encoding" in headers:
        return Chunked()
    length = headers.get("content-length")
    return UntilClosed() if length is None else FixedLength(int(length))
