"""Recordings that a request brings or names: `ref_audio` and `source_audio` to the bytes of an audio file.

The server fetches no URL, and reads no file because a client said so, unless the manifest names its folder. What the
bytes hold is for the worker to find out: sound from outside is decoded there, not here.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from localapi.audio.decoder import container_of
from localapi.errors import GenerationFailed, InvalidRequest
from localapi.system.threads import aside

MAX_BYTES: Final = 32 * 1024 * 1024
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,40}://", re.IGNORECASE)
_LONGEST_HEAD: Final = 1000
"""Characters of a data: URL before its data."""
_PIECE: Final = 256 * 1024
"""Characters of base64 that are read at once: some tenths of a millisecond."""


async def requested_audio(value: str, param: str, folders: Sequence[str]) -> bytes:
    """What a request's field says: base64, a `data:` URL, or a file in one of the folders. Raises InvalidRequest."""
    if _URL.match(value):
        raise InvalidRequest(
            f"'{param}' is a URL, and this server fetches none. Send the file itself, as base64 or as a data: URL.",
            param=param,
        )
    path = await aside(lambda: _allowed_file(value, folders)) if folders and len(value) < 4096 else None  # noqa: PLR2004
    if path is not None:
        try:
            return await _read(path, param)
        except OSError as error:
            raise InvalidRequest(
                f"'{param}' names a file that cannot be read: {error.strerror}.", param=param
            ) from error
    try:
        data = await asyncio.to_thread(_decoded, value)
        if container_of(data) is None:
            raise ValueError("it holds no sound of a known kind")  # noqa: TRY301  # one message for all
    except ValueError as error:
        allowed = f" or a file in {', '.join(folders)}" if folders else ""
        hint = "" if folders else " (files can be named where the manifest's audio_folders allows it)"
        raise InvalidRequest(
            f"'{param}' is no audio file as base64, no data: URL{allowed}: {error}{hint}.", param=param
        ) from error
    return data


async def manifest_audio(value: str, param: str) -> bytes:
    """What the manifest says: a `data:` URL, or a file. Raises GenerationFailed where the file has gone."""
    if value.startswith("data:"):
        try:
            return await asyncio.to_thread(_decoded, value)
        except ValueError as error:
            raise GenerationFailed(f"The manifest's {param} is no data: URL: {error}.") from error
    path = Path(value)
    try:
        return await _read(path, param)
    except OSError as error:
        raise GenerationFailed(f"The file of {param} ({path.name}) cannot be read: {error.strerror}.") from error


def _decoded(value: str) -> bytes:
    """Raises ValueError with the reason. By pieces: the interpreter lock is held for as long as each takes."""
    start = 0
    if value[:5].lower() == "data:":
        head, comma, _ = value[:_LONGEST_HEAD].partition(",")
        if not (comma and head.lower().endswith(";base64")):
            raise ValueError("its data: URL is not base64")
        start = len(head) + 1
    end = len(value.rstrip("= \t\r\n"))
    data, rest = bytearray(), ""
    for at in range(start, end, _PIECE):
        text = rest + "".join(value[at : min(at + _PIECE, end)].split())
        whole = len(text) & ~3
        data += _of_base64(text[:whole])
        rest = text[whole:]
    data += _of_base64(rest)
    if not data:
        raise ValueError("it is empty")
    return bytes(data)


def _of_base64(text: str) -> bytes:
    """Without its padding. Raises ValueError."""
    if "=" in text:
        raise ValueError("it goes on after its padding")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _allowed_file(value: str, folders: Sequence[str]) -> Path | None:
    """The file that the value names inside one of the folders, links followed; None where it names none."""
    for folder in folders:
        try:
            place = (Path(folder) / value).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            continue
        if place.is_relative_to(Path(folder).resolve()) and place.is_file():
            return place
    return None


async def _read(path: Path, param: str) -> bytes:
    """Raises OSError, and InvalidRequest for what is too large."""

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    data = await aside(read)
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"The file of '{param}' is larger than {MAX_BYTES // 2**20} MiB.", param=param)
    return data
