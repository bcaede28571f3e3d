"""Recordings in a request: from `ref_audio` and `source_audio` to the bytes of an audio file.

The server fetches no URL, and reads only files in folders that the manifest allows. The bytes are interpreted by the
worker: audio from outside is decoded there, not here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from localapi.api.allowed_file import allowed_file, read_up_to
from localapi.audio.decoder import read_written
from localapi.errors import GenerationFailed, InvalidRequest
from localapi.system.data_url import NotWritten, is_data_url

MAX_BYTES: Final = 32 * 1024 * 1024
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]{0,40}://", re.IGNORECASE)
LONGEST_WRITTEN: Final = -(-MAX_BYTES * 4 // 3) + 64 * 1024
"""Characters of the largest recording in base64, including the start of a data: URL, and blanks."""


async def requested_audio(value: str, param: str, folders: Sequence[str]) -> bytes:
    """Return the audio that a request names: base64, a `data:` URL, or a file in one of the folders.

    Raise InvalidRequest for anything else.
    """
    if _URL.match(value):
        raise InvalidRequest(
            f"'{param}' is a URL, which this server does not fetch. Send the file itself, as base64 or as a data: URL.",
            param=param,
        )
    path = await allowed_file(value, folders) if len(value) < 4096 else None  # noqa: PLR2004
    if path is not None:
        try:
            return await _read(path, param)
        except OSError as error:
            raise InvalidRequest(
                f"'{param}' names a file that cannot be read: {error.strerror}.", param=param
            ) from error
    try:
        data = await asyncio.to_thread(read_written, value)
    except NotWritten as error:
        allowed = f" or a file in {', '.join(folders)}" if folders else ""
        hint = "" if folders else " (files can be named if the manifest's audio_folders allows it)"
        raise InvalidRequest(
            f"'{param}' is not an audio file in base64, a data: URL{allowed}: {error}{hint}.", param=param
        ) from error
    if len(data) > MAX_BYTES:
        raise _too_large(param)
    return data


async def manifest_audio(value: str, param: str) -> bytes:
    """Return the audio of a manifest value: a `data:` URL or a file. Raise GenerationFailed if it cannot be read."""
    if is_data_url(value):
        try:
            return await asyncio.to_thread(read_written, value)
        except NotWritten as error:
            raise GenerationFailed(f"The manifest's {param} is not a valid data: URL: {error}.") from error
    path = Path(value)
    try:
        return await _read(path, param)
    except OSError as error:
        raise GenerationFailed(f"The file of {param} ({path.name}) cannot be read: {error.strerror}.") from error


async def _read(path: Path, param: str) -> bytes:
    """Read the file. Raise OSError, or InvalidRequest if it is too large."""
    data = await read_up_to(path, MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise _too_large(param)
    return data


def _too_large(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"The file of '{param}' is larger than {MAX_BYTES // 2**20} MiB. A few seconds of clear speech are enough; "
        f"FLAC and Opus files are smaller than WAV.",
        param=param,
    )
