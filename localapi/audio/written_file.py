"""Read an audio file that is written as text: a `data:` URL, or base64 alone. A decoder reads the content."""

from __future__ import annotations

from localapi.audio.decoder import container_of
from localapi.system.written_file import NotWritten, written_bytes


def read_written(text: str) -> bytes:
    """Return the audio file in a text. Raise NotWritten if there is none of a known kind."""
    data = written_bytes(text)
    if container_of(data) is None:
        raise NotWritten("it is not audio of a known kind")
    return data
