"""Read a form with a file (multipart/form-data, RFC 7578): fields into memory, the file to disk, as both arrive.

The client's name for the file is only passed on, never used as a path. The file is deleted when the request ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from quart import request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import NEED_DATA, Data, Epilogue, Field, File, MultipartDecoder

from localapi.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding
from localapi.http import request_context
from localapi.http.encodings import encoding_of
from localapi.http.paced_body import PacedBody
from localapi.worker.protocol import Upload

FORM: Final = "multipart/form-data"
MEGABYTE: Final = 2**20
IDLE_SECONDS: Final = 60
"""Maximum time in which a client sends nothing before its form is complete."""
MOST_PARTS: Final = 100
MOST_FIELD_BYTES: Final = MEGABYTE
"""Maximum size of all fields together."""
MOST_AROUND_BYTES: Final = 2 * MEGABYTE
"""Maximum size of a body besides the file, and of what is kept in memory."""
_PIECE_BYTES: Final = 64 * 1024
_WRITTEN_BYTES: Final = MEGABYTE
"""Size of one write to disk."""


@dataclass
class Form:
    """Form as a client sent it."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    """Values by name, in the order in which they arrived."""
    file: Upload | None = None
    file_bytes: int = 0

    def value(self, name: str) -> str | None:
        """Return a field's last value; None if there is none, or an empty one."""
        return (self.fields.get(name) or [""])[-1] or None


MostBytes = Callable[[Form], int]
"""Function that returns the maximum size of the file, given the fields before it."""


async def read_form(file_field: str, most_bytes: MostBytes) -> Form:
    """Return the request's form. Raise InvalidRequest, RequestTooLarge and UnsupportedEncoding.

    The size is checked before anything is read if the client declares it, and again while the file arrives.
    """
    content_type, parameters = parse_options_header(request.headers.get("Content-Type"))
    boundary = parameters.get("boundary", "")
    if content_type.lower() != FORM or not boundary:
        found = request.headers.get("Content-Type") or "none"
        raise InvalidRequest(
            f"The body must be a form ({FORM}) with the field '{file_field}'; its Content-Type is {found[:100]!r}."
        )
    if encoding_of(",".join(request.headers.getlist("Content-Encoding"))) is not None:
        raise UnsupportedEncoding("Forms with a file cannot be compressed. Send the body without Content-Encoding.")
    reader = _FormReader(file_field, boundary.encode("latin-1", "replace"), most_bytes)
    length = request.content_length
    if length is not None and length > most_bytes(reader.form) + MOST_AROUND_BYTES:
        raise _too_large(most_bytes(reader.form))
    body = request.body
    assert isinstance(body, PacedBody)  # noqa: S101  # the app's requests have such
    body.paced = True
    try:
        await reader.read(body)
    finally:
        body.drop_rest()
        await reader.close()
    return reader.form


class _FormReader:
    """Reader of one form as it arrives."""

    def __init__(self, file_field: str, boundary: bytes, most_bytes: MostBytes) -> None:
        self.form = Form()
        self._file_field = file_field
        self._most_bytes = most_bytes
        self._decoder = MultipartDecoder(boundary, MOST_AROUND_BYTES, max_parts=MOST_PARTS)
        self._field_bytes = 0
        self._part: Field | File | None = None
        self._value = bytearray()
        """Bytes of the current field or file that are not stored yet."""
        self._file: BinaryIO | None = None

    async def read(self, body: PacedBody) -> None:
        """Read to the end of the form."""
        pieces = aiter(body)
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    data = await anext(pieces, None)
            except TimeoutError:
                raise InvalidRequest(f"Nothing more of the body arrived for {IDLE_SECONDS} s.") from None
            if data is None:
                break
            for at in range(0, len(data), _PIECE_BYTES):
                await self._take(data[at : at + _PIECE_BYTES])
        if not await self._take(None):
            raise InvalidRequest("The form ends in the middle: its closing boundary is missing.")

    async def close(self) -> None:
        """Close the file, complete or not."""
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    async def _take(self, data: bytes | None) -> bool:
        """Process the next bytes, or None at the end. Return True if the form is complete."""
        try:
            self._decoder.receive_data(data)
            while True:
                event = self._decoder.next_event()
                if event is NEED_DATA:
                    return False
                if isinstance(event, Epilogue):
                    return True
                if isinstance(event, Field | File):
                    await self._begin(event)
                elif isinstance(event, Data):
                    await self._add(event)
        except RequestEntityTooLarge:
            raise RequestTooLarge(
                f"The form has more than {MOST_PARTS} parts, or a part with more than {MOST_AROUND_BYTES // MEGABYTE} "
                "MiB before its content."
            ) from None
        except (ValueError, TypeError, LookupError) as error:
            if data is None:  # it could not continue without more data
                return False
            raise InvalidRequest(f"The form cannot be read: {error}.") from error

    async def _begin(self, part: Field | File) -> None:
        if part.name == self._file_field and "Content-Type" in part.headers and not isinstance(part, File):
            part = File(name=part.name, filename="file", headers=part.headers)  # some clients send no file name
        self._part = part
        self._value.clear()
        if not isinstance(part.name, str) or not part.name:
            raise InvalidRequest("A part of the form has no name.")
        if not isinstance(part, File):
            return
        if part.name != self._file_field:
            raise InvalidRequest(
                f"The form has a file in the field {part.name[:100]!r}; the only file is '{self._file_field}'.",
                param=part.name[:100],
            )
        if self.form.file is not None:
            raise InvalidRequest(f"The form has several files '{self._file_field}'. Send one at a time.", param="file")
        path = await self._opened()
        content_type = part.headers.get("content-type") or "application/octet-stream"
        self.form.file = Upload(path=path, name=part.filename or "file", content_type=content_type)

    async def _opened(self) -> str:
        """Open a file that is deleted when the request ends, and return its path."""
        handle, path = await asyncio.to_thread(tempfile.mkstemp, prefix="localapi-upload-")
        self._file = os.fdopen(handle, "wb", buffering=0)
        request_context.current().held.push_async_callback(asyncio.to_thread, _delete, path)
        return path

    async def _add(self, event: Data) -> None:
        self._value += event.data
        if isinstance(self._part, File):
            self.form.file_bytes += len(event.data)
            most = self._most_bytes(self.form)
            if self.form.file_bytes > most:
                raise _too_large(most)
            if len(self._value) >= _WRITTEN_BYTES or not event.more_data:
                await self._write()
            return
        assert self._part is not None  # noqa: S101  # content follows the head of its part
        self._field_bytes += len(event.data)
        if self._field_bytes > MOST_FIELD_BYTES:
            raise RequestTooLarge(f"The fields of the form have more than {MOST_FIELD_BYTES // MEGABYTE} MiB.")
        if not event.more_data:
            try:
                value = self._value.decode()
            except UnicodeDecodeError as error:
                name = self._part.name[:100]
                hint = " A file needs a file name or a Content-Type." if name == self._file_field else ""
                raise InvalidRequest(f"'{name}' is not UTF-8: {error.reason}.{hint}", param=name) from None
            self.form.fields.setdefault(self._part.name, []).append(value)

    async def _write(self) -> None:
        assert self._file is not None  # noqa: S101  # the head of its part opened it
        file, data = self._file, bytes(self._value)
        self._value.clear()
        await asyncio.to_thread(_write_all, file, data)


def _write_all(file: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _delete(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _too_large(most: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The file is larger than {most // MEGABYTE} MiB (max_file_mb in the manifest). Send a compressed file, such "
        "as Opus or MP3, or parts of it."
    )
