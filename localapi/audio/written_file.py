"""An audio file written as text: a `data:` URL (RFC 2397), or base64 alone. What it holds is for a decoder to find out.

People paste what other programs wrote, so both alphabets of base64 are read, with or without padding, line ends and
blanks, and data: URLs with any parameters.
"""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from localapi.audio.decoder import container_of

_SCHEME: Final = re.compile(r"\s*data:", re.IGNORECASE)
_HEAD: Final = re.compile(r'(?:[^",]|"[^"]*")*,')
"""What stands before the data: a type and parameters, whose values may be in quotation marks and hold commas."""
_LONGEST_HEAD: Final = 1000
_PIECE: Final = 256 * 1024
"""Characters of base64 that are read at once: some tenths of a millisecond."""


class NotWritten(ValueError):
    """The text is no audio file; the message says why."""


def is_data_url(text: str) -> bool:
    """Return whether a text says of itself that it is a data: URL."""
    return _SCHEME.match(text) is not None


def read_written(text: str) -> bytes:
    """Return the audio file that a text holds. Raise NotWritten if it holds none of a known kind."""
    data = _data(text)
    if not data:
        raise NotWritten("it is empty")
    if container_of(data) is None:
        raise NotWritten("it holds no sound of a known kind")
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
    """By pieces, as the interpreter lock is held for as long as each takes."""
    end = len(text.rstrip("= \t\r\n"))
    data, rest = bytearray(), ""
    for at in range(start, end, _PIECE):
        piece = rest + "".join(text[at : min(at + _PIECE, end)].split()).replace("-", "+").replace("_", "/")
        whole = len(piece) & ~3
        data += _decoded(piece[:whole])
        rest = piece[whole:]
    return bytes(data + _decoded(rest))


def _decoded(text: str) -> bytes:
    """Of text without its padding."""
    if "=" in text:
        raise NotWritten("it goes on after its padding")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise NotWritten(f"it is not base64: {error}") from None
