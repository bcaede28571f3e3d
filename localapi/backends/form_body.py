"""A form with a file, for another server: multipart/form-data whose file is read from disk as it is sent."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

FILE_FIELD: Final = "file"
_READ_BYTES: Final = 256 * 1024
_NOT_IN_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]")


class FormBody:
    """The body. Values of fields are texts, or lists of texts: a field each."""

    def __init__(self, fields: Mapping[str, Any], path: str, *, name: str, content_type: str) -> None:
        """`name`: what the server is told as the file's."""
        self._path = path
        self._boundary = f"localapi-{secrets.token_hex(16)}"
        parts: list[bytes] = []
        for field, value in fields.items():
            values = value if isinstance(value, list) else [value]
            parts += [f"{self._head(field)}\r\n{each}\r\n".encode() for each in values]
        head = f'{self._head(FILE_FIELD)[:-2]}; filename="{_quoted(name)}"\r\n'
        head += f"Content-Type: {_NOT_IN_HEADERS.sub('', content_type)}\r\n\r\n"
        self._before = b"".join([*parts, head.encode()])
        self._after = f"\r\n--{self._boundary}--\r\n".encode()

    def _head(self, name: str) -> str:
        return f'--{self._boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n'

    def headers(self) -> dict[str, str]:
        """Return the headers that describe the body. Blocks."""
        length = len(self._before) + os.path.getsize(self._path) + len(self._after)
        return {"Content-Type": f"multipart/form-data; boundary={self._boundary}", "Content-Length": str(length)}

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes. Blocks."""
        yield self._before
        with open(self._path, "rb") as file:
            while data := file.read(_READ_BYTES):
                yield data
        yield self._after

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes."""
        blocks = self.blocks()
        while (data := await asyncio.to_thread(next, blocks, None)) is not None:
            yield data


def _quoted(name: str) -> str:
    """Return a name for a header, as browsers write it."""
    return _NOT_IN_HEADERS.sub("", name).replace('"', "%22")
