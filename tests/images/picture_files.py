"""Image files: small ones that are whole, and headers that claim any size."""

from __future__ import annotations

import base64
import struct
import zlib

GIF_TABLE = b"\x00" * 6


def png(width: int = 4, height: int = 3, color: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A whole picture of one color."""
    rows = b"".join(b"\x00" + bytes(color) * width for _ in range(height))
    return png_header(width, height) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def jpeg_header(width: int, height: int, *, before: bytes = b"") -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(before)) + before
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + exif + b"\xff\xc2" + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xda"


def gif_header(width: int, height: int, frame: tuple[int, int, int, int] | None = None) -> bytes:
    left, top, frame_width, frame_height = frame or (0, 0, width, height)
    comment = b"\x21\xfe\x03abc\x00"
    image = b"\x2c" + struct.pack("<HHHHB", left, top, frame_width, frame_height, 0)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + GIF_TABLE + comment + image


def webp_header(kind: str, width: int, height: int) -> bytes:
    sizes = {
        "VP8 ": b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width & 0xFFFF, height & 0xFFFF),
        "VP8L": b"\x2f" + struct.pack("<I", ((width - 1) & 0x3FFF) | ((height - 1) & 0x3FFF) << 14),
        "VP8X": b"\x00" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
    }
    content = sizes[kind]
    return (
        b"RIFF"
        + struct.pack("<I", 12 + len(content))
        + b"WEBP"
        + kind.encode()
        + struct.pack("<I", len(content))
        + content
    )


def bmp_header(width: int, height: int, size: int = 40) -> bytes:
    sides = struct.pack("<HH", width, height) if size == 12 else struct.pack("<ii", width, height)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + struct.pack("<I", size) + sides


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
