"""Read a file given as text: a `data:` URL (RFC 2397), or plain base64.

People paste the output of other programs, so both alphabets of base64 are accepted, with or without padding, line
breaks and spaces, and data: URLs with any parameters.
"""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes

_SCHEME: Final = re.compile(r"\s*data:", re.IGNORECASE)
_HEAD: Final = re.compile(r'(?:[^",]|"[^"]*")*,')
"""Type and parameters before the data; their values may be in quotation marks and contain commas."""
_LONGEST_HEAD: Final = 1000
_PIECE: Final = 256 * 1024
"""Characters of base64 to decode at once, which takes some tenths of a millisecond."""


class NotWritten(ValueError):
    """The text is not a file; the message says why."""


def is_data_url(text: str) -> bool:
    """Return True if a text claims to be a data: URL."""
    return _SCHEME.match(text) is not None


def written_bytes(text: str) -> bytes:
    """Return the file in a text. Raise NotWritten if there is none, or it is empty."""
    data = _data(text)
    if not data:
        raise NotWritten("it is empty")
    return data


def _data(text: str) -> bytes:
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _of_base64(text, 0)
    head = _HEAD.match(text, scheme.end(), scheme.end() + _LONGEST_HEAD)
    if head is None:
        raise NotWritten("its data: URL has no comma before the data")
    parameters = [part.strip().lower() for part in head[0][:-1].split(";")]
    is_base64 = "base64" in parameters
    if "%" in text:
        unquoted = unquote_to_bytes(text[head.end() :])
        return _of_base64(unquoted.decode("latin-1"), 0) if is_base64 else unquoted
    if not is_base64:
        raise NotWritten("its data: URL is not base64")
    return _of_base64(text, head.end())


def _of_base64(text: str, start: int) -> bytes:
    """Decode base64 in pieces, because the interpreter lock is held during each."""
    end = len(text.rstrip("= \t\r\n"))
    data, rest = bytearray(), ""
    for at in range(start, end, _PIECE):
        piece = rest + "".join(text[at : min(at + _PIECE, end)].split()).replace("-", "+").replace("_", "/")
        whole = len(piece) & ~3
        data += _decoded(piece[:whole])
        rest = piece[whole:]
    return bytes(data + _decoded(rest))


def _decoded(text: str) -> bytes:
    """Decode base64 without padding."""
    if "=" in text:
        raise NotWritten("it continues after its padding")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise NotWritten(f"it is not base64: {error}") from None
