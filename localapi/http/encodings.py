"""Bodies that come compressed (RFC 9110, 8.4), decoded within a limit: a small one may hold a thousand times more."""

from __future__ import annotations

import zlib
from typing import Final

from localapi.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

ENCODINGS: Final = ("gzip", "deflate", "br")
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
_MAX_MEMBERS: Final = 100
"""An empty one has 20 bytes: a body of many would take long."""
_PIECE_BYTES: Final = 64 * 1024
"""What is decoded of brotli at a time: it makes up to twice as much as it is asked for."""


def encoding_of(header: str) -> str | None:
    """Return the encoding that a Content-Encoding header names, None if there is none. Raises UnsupportedEncoding."""
    names = [name for each in header.lower().split(",") if (name := each.strip()) not in ("", "identity")]
    if not names:
        return None
    name = names[0].removeprefix("x-")
    if len(names) > 1 or name not in ENCODINGS:
        raise UnsupportedEncoding(
            f"The body's Content-Encoding {header[:100]!r} is not supported. Send it as it is, or as one of "
            f"{', '.join(ENCODINGS)}."
        )
    return name


def decode(data: bytes, encoding: str, limit: int) -> bytes:
    """Return the decoded body; never more than `limit` bytes of it are made.

    Raises InvalidRequest if it is not what `encoding` says, RequestTooLarge if it holds more.
    """
    try:
        match encoding:
            case "gzip":
                decoded, complete = _gunzip(data, limit + 1)
            case "deflate":
                decoded, complete = _inflate(data, limit + 1)
            case _:
                decoded, complete = _brotli(data, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"The body is not valid {encoding}: {error}", code="invalid_encoding") from error
    if len(decoded) > limit:
        raise RequestTooLarge(f"The body is larger than {limit // 2**20} MiB when it is decoded.")
    if not complete:
        raise InvalidRequest(
            f"The body is not valid {encoding}: it does not end where the body ends.", code="invalid_encoding"
        )
    return decoded


def _gunzip(data: bytes, most: int) -> tuple[bytes, bool]:
    """Decode a gzip file, which may have several members."""
    decoded = bytearray()
    for _ in range(_MAX_MEMBERS):
        reader = zlib.decompressobj(wbits=_GZIP_BITS)
        decoded += reader.decompress(data, most - len(decoded))
        data = reader.unused_data
        if not data or len(decoded) >= most:
            return bytes(decoded), reader.eof
    raise zlib.error(f"it has more than {_MAX_MEMBERS} members")


def _inflate(data: bytes, most: int) -> tuple[bytes, bool]:
    """Deflate in zlib's wrapping, as the standard says, or bare, as some clients understood it."""
    try:
        reader = zlib.decompressobj()
        decoded = reader.decompress(data, most)
    except zlib.error:
        reader = zlib.decompressobj(-zlib.MAX_WBITS)
        decoded = reader.decompress(data, most)
    return decoded, reader.eof and not reader.unused_data


def _brotli(data: bytes, most: int) -> tuple[bytes, bool]:
    import brotli  # type: ignore[import-untyped]  # noqa: PLC0415  # only for those who send it

    reader = brotli.Decompressor()
    decoded = bytearray()
    try:
        piece = reader.process(data, output_buffer_limit=_PIECE_BYTES)
        while piece and len(decoded) < most:
            decoded += piece
            piece = reader.process(b"", output_buffer_limit=_PIECE_BYTES)
    except brotli.error as error:
        raise zlib.error(str(error)) from error
    return bytes(decoded), reader.is_finished()
