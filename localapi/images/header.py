"""Read the format and the size of an image from the start of its file, without decoding it.

The file is not trusted: its content determines its format, never its name or declared type. The size is read before any
memory is allocated for the pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Format = Literal["png", "jpeg", "gif", "webp", "bmp"]
FORMATS: Final = "PNG, JPEG, WebP, GIF and BMP"
MOST_SCANS: Final = 200
"""Maximum scans of a progressive JPEG. Ordinary files have about ten, and each costs as much as a decode."""

_NO_SIZE: Final = frozenset({0xC4, 0xC8, 0xCC})
"""JPEG markers among 0xC0 to 0xCF that begin no frame."""
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a length."""
_ISO_BRANDS: Final = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF"}
_BMP_CORE: Final = 12
"""Bytes of the oldest header of a BMP, whose numbers have 16 bits."""
_GIF_EXTENSION, _GIF_IMAGE = 0x21, 0x2C


class NotAnImage(ValueError):
    """The file is not a readable image; the message says why."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Format and size of an image, as its file states them."""

    format: Format
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Number of pixels that a decoder would have to hold."""
        return self.width * self.height

    @property
    def media_type(self) -> str:
        """Media type for a data: URL."""
        return f"image/{self.format}"


def read_header(data: bytes) -> ImageHeader:
    """Return the format and the size of an image file. Raise NotAnImage."""
    if not data:
        raise NotAnImage("the file is empty")
    found = _format_of(data)
    if found is None:
        raise NotAnImage(f"{_guess(data)}; images may be {FORMATS}")
    try:
        width, height = _SIZES[found](data)
    except (struct.error, IndexError):
        raise NotAnImage(f"the {found.upper()} file ends before it states the image's size") from None
    if width <= 0 or height <= 0:
        raise NotAnImage(f"the {found.upper()} file states that the image has {width}x{height} pixels")
    return ImageHeader(found, width, height)


def _format_of(data: bytes) -> Format | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    # Two letters are weak evidence, so the size of the following header must be a valid one.
    if data.startswith(b"BM") and data[14:18] in _BMP_HEADERS:
        return "bmp"
    return None


_BMP_HEADERS: Final = frozenset(struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124))


def _guess(data: bytes) -> str:
    """Return what the file seems to be, for people."""
    if data[4:8] == b"ftyp" and data[8:12] in _ISO_BRANDS:
        return f"it is {_ISO_BRANDS[data[8:12]]}, which is not supported"
    beginning = data[:1000].lstrip().lower()
    if beginning.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"svg" in beginning:
        return "it is SVG, which is not supported"
    if beginning.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, not an image"
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return "it is TIFF, which is not supported"
    if data.startswith(b"%PDF"):
        return "it is a PDF, not an image"
    return "it is not an image of a known format"


def _png_size(data: bytes) -> tuple[int, int]:
    length, name, width, height = struct.unpack_from(">I4sII", data, 8)
    if name != b"IHDR" or length != 13:  # noqa: PLR2004  # of this chunk, by the standard
        raise NotAnImage("the PNG file does not begin with its size")
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    """Return the size of the canvas, or of the first frame if that exceeds it: decoders then enlarge the canvas."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13
    if flags & 0x80:
        at += 3 * 2 ** ((flags & 7) + 1)
    while data[at] == _GIF_EXTENSION:
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] != _GIF_IMAGE:
        raise NotAnImage("the GIF file contains no image")
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            width = int.from_bytes(data[24:27], "little") + 1
            height = int.from_bytes(data[27:30], "little") + 1
            if len(data) < 30:  # noqa: PLR2004  # through the height
                raise IndexError
            return width, height
        case b"VP8L":
            [bits] = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise NotAnImage("the WebP file contains no image")


def _bmp_size(data: bytes) -> tuple[int, int]:
    [size] = struct.unpack_from("<I", data, 14)
    if size == _BMP_CORE:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height
    width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # negative: rows are stored from top to bottom


def _jpeg_size(data: bytes) -> tuple[int, int]:
    if data.count(b"\xff\xda") > MOST_SCANS:
        raise NotAnImage(f"the JPEG file has more than {MOST_SCANS} scans")
    at = 2
    while True:
        if data[at] != 0xFF:  # noqa: PLR2004  # begins a marker
            raise NotAnImage("the JPEG file is damaged before it states the image's size")
        while data[at] == 0xFF:  # noqa: PLR2004  # any number may come before a marker
            at += 1
        marker = data[at]
        at += 1
        if marker in _BARE:
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:  # noqa: PLR2004
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        if marker == 0xDA:  # noqa: PLR2004  # the picture begins, and no frame came before it
            raise NotAnImage("the JPEG file does not state the image's size")
        [length] = struct.unpack_from(">H", data, at)
        at += max(2, length)


_SIZES: Final[dict[Format, Callable[[bytes], tuple[int, int]]]] = {
    "png": _png_size,
    "jpeg": _jpeg_size,
    "gif": _gif_size,
    "webp": _webp_size,
    "bmp": _bmp_size,
}
