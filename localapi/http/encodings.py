"""Decode compressed bodies (RFC 9110, 8.4) up to a limit, because a small body may expand a thousandfold."""

from __future__ import annotations

import zlib
from typing import Final

from localapi.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

ENCODINGS: Final = ("gzip", "deflate", "br")
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS
_MAX_MEMBERS: Final = 100
"""Maximum members of a gzip file. An empty member has 20 bytes, so a body could have very many, which take long."""
_PIECE_BYTES: Final = 64 * 1024
"""Bytes of brotli to decode at a time; the decoder may return twice as many as requested."""


def encoding_of(header: str) -> str | None:
    """Return the encoding in a Content-Encoding header; None if there is none. Raise UnsupportedEncoding."""
    names = [name for each in header.lower().split(",") if (name := each.strip()) not in ("", "identity")]
    if not names:
        return None
    name = names[0].removeprefix("x-")
    if len(names) > 1 or name not in ENCODINGS:
        raise UnsupportedEncoding(
            f"The body's Content-Encoding {header[:100]!r} is not supported. Send it uncompressed, or as one of "
            f"{', '.join(ENCODINGS)}."
        )
    return name


def decode(data: bytes, encoding: str, limit: int) -> bytes:
    """Return the decoded body, of at most `limit` bytes.

    Raise InvalidRequest if it does not have this encoding, and RequestTooLarge if it is larger.
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
        raise RequestTooLarge(f"The body is larger than {limit // 2**20} MiB after decoding.")
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
    """Decode deflate with zlib's header, as the standard requires, or without, as some clients send it."""
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
