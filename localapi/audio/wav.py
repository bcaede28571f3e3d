"""WAV: the header that is written, and the files that are read, walked chunk by chunk.

macOS' `say` puts chunks named JUNK and FLLR before the sound. Only 16-bit PCM is read here; `decoder` reads the rest.
"""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

UNKNOWN = 0xFFFF_FFFF
"""The length of what is still being made."""

_PCM = 0x0001
_EXTENSIBLE = 0xFFFE
_FORM = struct.Struct("<HHIIHH")
_SUBFORMAT = struct.Struct("<24xH")
"""Where an extensible format has its tag."""


class NotWav(ValueError):
    """The bytes are no WAV file, or one of another kind than 16-bit PCM; the message says which."""


class _Sound(NamedTuple):
    channels: int
    sample_rate_hz: int


def header(sample_rate_hz: int, data_bytes: int | None) -> bytes:
    """The 44 bytes before that many bytes of 16-bit mono PCM; None for a length that is not known yet."""
    size = UNKNOWN if data_bytes is None else min(data_bytes, UNKNOWN)
    riff = struct.pack("<4sI4s", b"RIFF", min(size + 36, UNKNOWN), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, sample_rate_hz, 2 * sample_rate_hz, 2, 16)
    return riff + form + struct.pack("<4sI", b"data", size)


def file(pcm: bytes, sample_rate_hz: int) -> bytes:
    """A whole file."""
    return header(sample_rate_hz, len(pcm)) + pcm


def read(data: bytes) -> tuple[bytes, int]:
    """The sound of a file as 16-bit mono PCM, several channels mixed to one, and its rate in Hz.

    A length that is unknown or goes beyond the end is taken for "all that follows". Raises `NotWav`.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise NotWav(f"no WAV file: it begins with {data[:12]!r}")
    sound: _Sound | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt ":
            sound = _sound(body)
        elif name == b"data":
            if sound is None:
                raise NotWav("its sound comes before its format")
            return _mono(body, sound.channels), sound.sample_rate_hz
        at += 8 + size + size % 2  # a chunk of odd length is followed by a byte that does not count
    raise NotWav("it ends before its sound begins")


def _sound(body: bytes) -> _Sound:
    """What the chunk `fmt ` says."""
    if len(body) < _FORM.size:
        raise NotWav("its format is cut off")
    tag, channels, sample_rate_hz, _, _, bits = _FORM.unpack_from(body)
    if tag == _EXTENSIBLE and len(body) >= _SUBFORMAT.size:
        (tag,) = _SUBFORMAT.unpack_from(body)
    if (tag, bits) != (_PCM, 16):
        raise NotWav(f"its sound is not 16-bit PCM: format tag {tag:#06x}, {bits} bits")
    if channels == 0 or sample_rate_hz == 0:
        raise NotWav(f"its format makes no sense: {channels} channels at {sample_rate_hz} Hz")
    return _Sound(channels, sample_rate_hz)


def _mono(body: bytes, channels: int) -> bytes:
    frame_bytes = 2 * channels
    pcm = body[: len(body) // frame_bytes * frame_bytes]
    if channels == 1:
        return pcm
    samples = iter(array("h", pcm))
    return array("h", [sum(frame) // channels for frame in zip(*[samples] * channels, strict=True)]).tobytes()
