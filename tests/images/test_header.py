"""Facts from the first bytes of an image file, as a table; nothing is decoded."""

from __future__ import annotations

import pytest

from localapi.images.header import MOST_SCANS, ImageHeader, NotAnImage, read_header
from tests.images.picture_files import bmp_header, gif_header, jpeg_header, png, png_header, webp_header

pytestmark = pytest.mark.everyday


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (png(4, 3), ImageHeader("png", 4, 3)),
        (png_header(100_000, 100_000), ImageHeader("png", 100_000, 100_000)),
        (jpeg_header(640, 480), ImageHeader("jpeg", 640, 480)),
        # A thumbnail inside of EXIF has a frame of its own, which is not that of the picture.
        (jpeg_header(640, 480, before=b"Exif\0\0" + jpeg_header(16, 12)), ImageHeader("jpeg", 640, 480)),
        (jpeg_header(65_535, 65_535), ImageHeader("jpeg", 65_535, 65_535)),
        (gif_header(20, 10), ImageHeader("gif", 20, 10)),
        # Decoders enlarge the canvas for a frame that goes beyond it.
        (gif_header(1, 1, (5, 6, 60_000, 50_000)), ImageHeader("gif", 60_005, 50_006)),
        (webp_header("VP8 ", 640, 480), ImageHeader("webp", 640, 480)),
        (webp_header("VP8L", 16_000, 9), ImageHeader("webp", 16_000, 9)),
        (webp_header("VP8X", 100_000, 100_000), ImageHeader("webp", 100_000, 100_000)),
        (bmp_header(30, 20), ImageHeader("bmp", 30, 20)),
        (bmp_header(30, -20), ImageHeader("bmp", 30, 20)),
        (bmp_header(30, 20, size=12), ImageHeader("bmp", 30, 20)),
    ],
)
def test_a_header_tells_format_and_size(data: bytes, header: ImageHeader) -> None:
    assert read_header(data) == header


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"GIF89a", "GIF"),
        (b"hello", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"II*\x00", "TIFF"),
        (b"BM but only a text", "not an image"),
        (png_header(0, 5), "0x5"),
        (png_header(5, 0), "5x0"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 20, "PNG"),
        (jpeg_header(10, 0), "10x0"),
        (b"\xff\xd8\xff\xda\x00\x02" + b"\x00" * 20, "JPEG"),
        (b"\xff\xd8\xff\xe0\x00\x04ab" + b"\x00" * 20, "damaged"),
        (jpeg_header(10, 10) + b"\xff\xda" * MOST_SCANS, "scans"),
        (b"GIF89a" + b"\x00" * 7 + b"\x3b", "GIF"),
        (webp_header("VP8L", 5, 5).replace(b"VP8L", b"VP9 "), "WebP"),
        (bmp_header(-5, 5), "-5x5"),
    ],
)
def test_what_is_no_picture_is_refused_and_named(data: bytes, words: str) -> None:
    with pytest.raises(NotAnImage, match=words):
        read_header(data)


WHOLE = [jpeg_header(9, 9, before=b"x" * 40), gif_header(9, 9), png_header(9, 9), bmp_header(9, 9)]
WHOLE += [webp_header(kind, 9, 9) for kind in ("VP8 ", "VP8L", "VP8X")]


@pytest.mark.parametrize("data", WHOLE, ids=lambda data: repr(data[:16]))
def test_a_header_that_is_cut_anywhere_is_refused_or_tells_the_same(data: bytes) -> None:
    for length in range(len(data)):
        try:
            header = read_header(data[:length])
        except NotAnImage:
            continue
        assert (header.width, header.height) == (9, 9)
