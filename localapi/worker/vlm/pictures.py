"""Decode the image files of requests. The server has checked their headers; nothing else about them is trusted."""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from localapi.images.header import ImageHeader, NotAnImage, read_header
from localapi.worker.llm.prompt import PromptRefused

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# A truncated file is refused, and not filled up with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# The server knows the entry's limit. A file whose header lies about its size is detected below.
Image.MAX_IMAGE_PIXELS = None
MOST_SIDE = 4096
"""Maximum width and height of decoded images. Every model sees less; a JPEG is decoded at about this size at once."""
MOST_PIXELS = 64_000_000
"""Maximum pixels of all images of a request together after decoding, because a small file may contain a large image."""
LOW_SIDE = 512
"""Maximum width and height of an image with `detail: low`, as at OpenAI."""


def picture(data: bytes, detail: str | None = None, *, count: int = 1) -> Picture:
    """Return an image file as an upright RGB image on white. Raise PromptRefused.

    `detail` is as in `ImagePart`, `count` the number of images in the request.
    """
    side = LOW_SIDE if detail == "low" else min(MOST_SIDE, math.isqrt(MOST_PIXELS // count))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # because of odd metadata
            return _decoded(data, read_header(data), side)
    except UnidentifiedImageError:
        raise PromptRefused("An image cannot be decoded: its file is damaged.") from None
    except NotAnImage as error:
        raise PromptRefused(f"An image cannot be read: {error}.") from None
    except Exception as error:  # decoders raise any exception for a damaged file
        raise PromptRefused(f"An image cannot be decoded: {str(error)[:200] or type(error).__name__}.") from error


def _decoded(data: bytes, header: ImageHeader, side: int) -> Picture:
    with Image.open(io.BytesIO(data), formats=[header.format.upper()]) as opened:
        if opened.width * opened.height > header.pixels:
            raise NotAnImage("it is larger than its header states")
        if header.format == "jpeg":
            opened.draft("RGB", (side, side))
        opened.load()
        return _in_rgb(ImageOps.exif_transpose(_smaller(opened, side)))


def _smaller(image: Picture, side: int) -> Picture:
    """Return a very large image at a size that models can use, keeping the metadata about its orientation."""
    if max(image.size) <= side:
        return image
    share = side / max(image.size)
    size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    turned = image.getexif()
    reduced = image.resize(size, Image.Resampling.BOX)
    if turned:
        reduced.info["exif"] = turned.tobytes()
    return reduced


def _in_rgb(image: Picture) -> Picture:
    """Return the image in RGB: transparent pixels become white, and 16 bits per channel become 8."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        ground = Image.new("RGBA", shown.size, (255, 255, 255, 255))
        ground.alpha_composite(shown)
        return ground.convert("RGB")
    return image.convert("RGB")
