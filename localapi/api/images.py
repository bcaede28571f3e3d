"""Images in messages: fetched from sources that the manifest allows, and checked before anything decodes them.

A data: URL contains its image. A URL is fetched, and a file is read, only if the entry's image_hosts and image_folders
allow it. The server reads only the header of an image; workers decode it.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from localapi.api.allowed_file import allowed_file, read_up_to
from localapi.api.neutral_request import NeutralRequest
from localapi.backends.image_options import ImageLimits
from localapi.errors import InvalidRequest, shown
from localapi.images.header import ImageHeader, NotAnImage, read_header
from localapi.system.data_url import NotWritten, is_data_url, written_bytes
from localapi.worker.protocol import Chat, ImagePart

MEGABYTE: Final = 2**20
MOST_BYTES: Final = 64 * MEGABYTE
"""Maximum size of all images of a request together."""
FETCH_SECONDS: Final = 30.0
"""Time limit for fetching all of them."""
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_BAD_URL, _BAD_IMAGE, _TOO_LARGE = "invalid_image_url", "invalid_image", "image_too_large"


@dataclass(frozen=True)
class _Place:
    """Position of an image in a request."""

    ask: int
    message: int
    part: int
    image: ImagePart
    param: str


async def with_images(request: NeutralRequest, limits: ImageLimits, *, forwards: bool) -> NeutralRequest:
    """Return the request with its images in their parts. Raise InvalidRequest.

    If `forwards`, the request may be sent on as the client wrote it, so the original gets the images too.
    """
    places = list(_places(request))
    if not places:
        return request
    if len(places) > limits.count:
        raise InvalidRequest(
            f"The request has {len(places)} images; the maximum for this model is {limits.count} (max_images).",
            param=places[limits.count].param,
            code=_TOO_LARGE,
        )
    asks = list(request.asks)
    left = MOST_BYTES
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            for place in places:
                data = await _file(place, limits)
                header = _checked(place, data, limits)
                left -= len(data)
                if left < 0:
                    raise InvalidRequest(
                        f"The images of the request are larger than {MOST_BYTES // MEGABYTE} MiB together. Send fewer "
                        "or smaller ones.",
                        param=place.param,
                        code=_TOO_LARGE,
                    )
                ask = asks[place.ask]
                assert isinstance(ask, Chat)  # noqa: S101  # others have no parts
                asks[place.ask] = _replaced(ask, place, data, header, forwards=forwards)
    except TimeoutError:
        raise InvalidRequest(
            f"Fetching the images took longer than {FETCH_SECONDS:g} s. Send them as data: URLs.",
            param=places[0].param,
            code=_BAD_URL,
        ) from None
    return replace(request, asks=asks)


def _places(request: NeutralRequest) -> Iterator[_Place]:
    said = iter(request.names.get("image", ()))
    for number, ask in enumerate(request.asks):
        for at, message in enumerate(ask.messages if isinstance(ask, Chat) else ()):
            for place, part in enumerate(() if isinstance(message.content, str) else message.content):
                if isinstance(part, ImagePart):
                    param = next(said, f"messages[{at}].content[{place}].image_url.url").removesuffix(".type")
                    yield _Place(number, at, place, part, param)


async def _file(place: _Place, limits: ImageLimits) -> bytes:
    """Return the file of an image. Raise InvalidRequest."""
    url, most_bytes = place.image.url, limits.megabytes * MEGABYTE
    if is_data_url(url):
        if len(url) * 3 // 4 > most_bytes + 2048:  # without decoding it
            raise _too_many_bytes(place, limits)
        try:
            return await asyncio.to_thread(written_bytes, url)
        except NotWritten as error:
            raise _unusable(place, f"The image cannot be read: {error}.", _BAD_URL) from None
    scheme = _SCHEME.match(url)
    kind = scheme[0].lower() if scheme else ""
    if kind in ("http", "https"):
        return await _from_host(place, limits, most_bytes)
    if kind == "file":
        return await _from_folder(place, limits, most_bytes)
    raise _unusable(
        place, f"{shown(url)} is not a valid image URL. Send the image itself as a data: URL in base64.", _BAD_URL
    )


async def _from_host(place: _Place, limits: ImageLimits, most_bytes: int) -> bytes:
    if not limits.hosts:
        raise _unusable(
            place,
            "This server fetches no images for this model, because the manifest lists no image_hosts. Send the "
            "image itself "
            "as a data: URL.",
            _BAD_URL,
        )
    # The HTTP client takes long to import, and only servers with such entries need it.
    module = await asyncio.to_thread(importlib.import_module, "localapi.backends.image_fetch")
    try:
        content: bytes = await module.fetched(place.image.url, limits.hosts, most_bytes=most_bytes)
    except module.CannotFetch as error:
        raise _unusable(
            place, f"The image cannot be fetched: {error}. Send the image itself as a data: URL.", _BAD_URL
        ) from error
    return content


async def _from_folder(place: _Place, limits: ImageLimits, most_bytes: int) -> bytes:
    """Return a file from the manifest's folders. Files elsewhere are treated as missing."""
    parts = urlsplit(place.image.url)
    path = None
    if parts.netloc in ("", "localhost"):
        path = await allowed_file(unquote(parts.path), limits.folders)
    if path is None:
        raise _unusable(
            place,
            f"{shown(place.image.url)} is not a file in the manifest's image_folders. Send the image "
            "itself as a data: URL.",
            _BAD_URL,
        )
    try:
        return await read_up_to(path, most_bytes)
    except OSError as error:
        raise _unusable(place, f"The image's file cannot be read: {error.strerror}.", _BAD_URL) from error


def _checked(place: _Place, data: bytes, limits: ImageLimits) -> ImageHeader:
    """Return the header of the file. Raise InvalidRequest."""
    if len(data) > limits.megabytes * MEGABYTE:
        raise _too_many_bytes(place, limits)
    try:
        header = read_header(data)
    except NotAnImage as error:
        raise _unusable(place, f"The image cannot be read: {error}.", _BAD_IMAGE) from None
    if header.pixels > limits.megapixels * 1_000_000:
        raise _unusable(
            place,
            f"The image has {header.width}x{header.height} pixels; the maximum for this model is "
            f"{limits.megapixels} million (max_image_megapixels).",
            _TOO_LARGE,
        )
    return header


def _replaced(chat: Chat, place: _Place, data: bytes, header: ImageHeader, *, forwards: bool) -> Chat:
    """Return the conversation with the image in its part, and in the original too, if that is forwarded."""
    messages = list(chat.messages)
    content = list(messages[place.message].content)
    content[place.part] = ImagePart("", place.image.detail, data)
    messages[place.message] = msgspec.structs.replace(messages[place.message], content=content)
    original = chat.original
    if forwards and original is not None and not is_data_url(place.image.url):
        original = _with_url(original, place, f"data:{header.media_type};base64,{base64.b64encode(data).decode()}")
    return msgspec.structs.replace(chat, messages=messages, original=original)


def _with_url(body: dict[str, Any], place: _Place, url: str) -> dict[str, Any]:
    """Return a body in OpenAI's form with another URL for one of its images."""
    messages = list(body["messages"])
    message = messages[place.message]
    content = list(message["content"])
    part = content[place.part]
    content[place.part] = {**part, "image_url": {**part["image_url"], "url": url}}
    messages[place.message] = {**message, "content": content}
    return {**body, "messages": messages}


def _too_many_bytes(place: _Place, limits: ImageLimits) -> InvalidRequest:
    return _unusable(
        place,
        f"The image is larger than {limits.megabytes} MiB, the maximum for this model (max_image_mb).",
        _TOO_LARGE,
    )


def _unusable(place: _Place, message: str, code: str) -> InvalidRequest:
    return InvalidRequest(message, param=place.param, code=code, loggable=f"{code} {place.param}")
