"""Recordings that a request brings or names: `ref_audio` and `source_audio` to the bytes of an audio file.

The server fetches no URL, and reads no file because a client said so, unless the manifest names its folder. What the
bytes hold is for the worker to find out: sound from outside is decoded there, not here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from localapi.errors import GenerationFailed, InvalidRequest

MAX_BYTES: Final = 32 * 1024 * 1024
_DATA_URL = re.compile(r"data:[^,;]*(?:;[^,;]*)*?;base64,", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


async def requested_audio(value: str, param: str, folders: Sequence[str]) -> bytes:
    """What a request's field says: base64, a `data:` URL, or a file in one of the folders. Raises InvalidRequest."""
    if _URL.match(value):
        raise InvalidRequest(
            f"'{param}' is a URL, and this server fetches none. Send the file itself, as base64 or as a data: URL.",
            param=param,
        )
    path = await asyncio.to_thread(_allowed_file, value, folders) if folders and len(value) < 4096 else None  # noqa: PLR2004
    if path is not None:
        return await _read(path, param)
    try:
        return _decoded(value)
    except ValueError as error:
        allowed = f" or a file in {', '.join(folders)}" if folders else ""
        hint = "" if folders else " (files can be named where the manifest's audio_folders allows it)"
        raise InvalidRequest(
            f"'{param}' is no audio file as base64, no data: URL{allowed}: {error}{hint}.", param=param
        ) from error


async def manifest_audio(value: str, param: str) -> bytes:
    """What the manifest says: a `data:` URL, or a file. Raises GenerationFailed where the file has gone."""
    if value.startswith("data:"):
        try:
            return _decoded(value)
        except ValueError as error:
            raise GenerationFailed(f"The manifest's {param} is no data: URL: {error}.") from error
    return await _read(Path(value), param)


def _decoded(value: str) -> bytes:
    """Raises ValueError with the reason."""
    prefix = _DATA_URL.match(value)
    if value[:5].lower() == "data:" and prefix is None:
        raise ValueError("its data: URL is not base64")
    text = "".join(value[prefix.end() if prefix else 0 :].split())
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(str(error)) from error
    if not data:
        raise ValueError("it is empty")
    return data


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
    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    try:
        data = await asyncio.to_thread(read)
    except OSError as error:
        raise GenerationFailed(f"The file of {param} ({path.name}) cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"The file of '{param}' is larger than {MAX_BYTES // 2**20} MiB.", param=param)
    return data
