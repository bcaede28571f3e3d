"""Write WAV headers, and read WAV files chunk by chunk.

`say` of macOS puts chunks named JUNK and FLLR before the sound. Only 16-bit PCM is read here; `decoder` reads the rest.
"""

from __future__ import annotations

import struct
from array import array

UNKNOWN = 0xFFFF_FFFF
"""Length of a file that is still being made."""

_PCM = 0x0001
_EXTENSIBLE = 0xFFFE
_FORM = struct.Struct("<HHIIHH")
_SUBFORMAT = struct.Struct("<24xH")
"""Layout of an extensible format up to its tag."""


class NotWav(ValueError):
    """The bytes are not a WAV file, or not 16-bit PCM; the message says which."""


def header(sample_rate_hz: int, data_bytes: int | None) -> bytes:
    """Return the header of 44 bytes for a number of bytes of 16-bit mono PCM; None if it is not known yet."""
    size = UNKNOWN if data_bytes is None else min(data_bytes, UNKNOWN)
    riff = struct.pack("<4sI4s", b"RIFF", min(size + 36, UNKNOWN), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, sample_rate_hz, 2 * sample_rate_hz, 2, 16)
    return riff + form + struct.pack("<4sI", b"data", size)


def file(pcm: bytes, sample_rate_hz: int) -> bytes:
    """Return a whole file."""
    return header(sample_rate_hz, len(pcm)) + pcm


def read(data: bytes) -> tuple[bytes, int]:
    """Return the sound of a file as 16-bit mono PCM, with several channels mixed to one, and its rate in Hz.

    A length that is unknown or exceeds the file means "up to the end". Raise `NotWav` for other files.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise NotWav(f"not a WAV file: it begins with {data[:12]!r}")
    channels = sample_rate_hz = 0
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt ":
            if len(body) < _FORM.size:
                raise NotWav("its format is cut off")
            tag, channels, sample_rate_hz, _, _, bits = _FORM.unpack_from(body)
            if tag == _EXTENSIBLE and len(body) >= _SUBFORMAT.size:
                (tag,) = _SUBFORMAT.unpack_from(body)
            if (tag, bits) != (_PCM, 16):
                raise NotWav(f"its sound is not 16-bit PCM: format tag {tag:#06x}, {bits} bits")
            if channels == 0 or sample_rate_hz == 0:
                raise NotWav(f"its format is invalid: {channels} channels at {sample_rate_hz} Hz")
        elif name == b"data":
            if channels == 0:
                raise NotWav("its sound comes before its format")
            return _mono(body, channels), sample_rate_hz
        at += 8 + size + size % 2  # a chunk of odd length is followed by a byte that does not count
    raise NotWav("it ends before its sound begins")


def _mono(body: bytes, channels: int) -> bytes:
    frame_bytes = 2 * channels
    pcm = body[: len(body) // frame_bytes * frame_bytes]
    if channels == 1:
        return pcm
    samples = iter(array("h", pcm))
    return array("h", [sum(frame) // channels for frame in zip(*[samples] * channels, strict=True)]).tobytes()
