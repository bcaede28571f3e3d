"""Encode PCM as a file in one of OpenAI's formats, streamed or whole.

WAV at any rate and PCM at 24 kHz need no codec; PyAV is imported only for the other formats.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

from localapi.audio.formats import WAV, Format

if TYPE_CHECKING:
    from localapi.audio.ffmpeg import Filters, Muxer

    _Writer: TypeAlias = "Muxer | Filters | _Samples"

_UNKNOWN: Final = 0xFFFF_FFFF
"""Length in the header of a WAV file that is still being written."""


class Encoder:
    """Encoder of a file that is sent while its audio is generated.

    The bytes do not depend on where the PCM was split. The first bytes come as early as the format allows: after 80 ms
    (mp3, opus) or 110 ms (aac, flac) of audio at 24 kHz, and at once for wav and pcm.
    """

    def __init__(self, format: Format, sample_rate_hz: int) -> None:  # noqa: A002  # OpenAI's word
        """Create an encoder. Raise ValueError for a rate below 1 Hz."""
        self.sample_rate_hz = sample_rate_hz
        self._writer: _Writer | None = _writer(format, sample_rate_hz, streamed=True)

    def encode(self, pcm: bytes, *, sample_rate_hz: int | None = None) -> bytes:
        """Add PCM, and return the bytes that are ready, maybe none. `pcm` may end within a sample.

        Raise ValueError after the end, or if `sample_rate_hz` differs from the file's.
        """
        if sample_rate_hz not in {None, self.sample_rate_hz}:
            raise ValueError(f"the sound changed from {self.sample_rate_hz} to {sample_rate_hz} Hz within a file")
        return self._open().feed(pcm)

    def finish(self) -> bytes:
        """Return the last bytes. A file with a codec but no audio gets 20 ms of silence: players refuse empty files.

        Raise ValueError after the end.
        """
        writer, self._writer = self._open(), None
        return writer.finish()

    def close(self) -> None:
        """Release all resources, whether finished or not. An `encode` that runs in another thread ends unharmed."""
        self._writer = None

    def _open(self) -> _Writer:
        if self._writer is None:
            raise ValueError("the file has ended")
        return self._writer


def encoded(pcm: bytes, format: Format, sample_rate_hz: int) -> bytes:  # noqa: A002  # OpenAI's word
    """Return a whole file, with its length in the header, so that it plays exactly as long as the audio.

    AAC is an exception: ADTS has no field for a length, so 40 to 80 ms of silence surround the audio.
    """
    writer = _writer(format, sample_rate_hz, streamed=False)
    return writer.feed(pcm) + writer.finish()


def _writer(format: Format, sample_rate_hz: int, *, streamed: bool) -> _Writer:  # noqa: A002  # OpenAI's word
    if sample_rate_hz < 1:
        raise ValueError(f"a rate is at least 1 Hz, not {sample_rate_hz}")
    if format.codec is not None:
        from localapi.audio.ffmpeg import Muxer  # noqa: PLC0415  # costly, and not always needed

        return Muxer(format, sample_rate_hz, streamed=streamed)
    if (rate := format.rate_for(sample_rate_hz)) != sample_rate_hz:
        from localapi.audio.ffmpeg import Filters  # noqa: PLC0415

        return Filters(sample_rate_hz, ("aresample", str(rate)))
    return _Samples(sample_rate_hz, has_header=format is WAV, streamed=streamed)


class _Samples:
    """Writer of unchanged samples, with or without a WAV header."""

    def __init__(self, sample_rate_hz: int, *, has_header: bool, streamed: bool) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._header_due = has_header
        self._streamed = streamed
        self._kept: list[bytes] = []
        """Kept bytes: the whole file if it is not streamed, otherwise the first half of a sample, if any."""

    def feed(self, pcm: bytes) -> bytes:
        if not self._streamed:
            self._kept.append(pcm)
            return b""
        data = b"".join([*self._kept, pcm])
        whole = len(data) & ~1
        self._kept = [data[whole:]]
        return self._header(None) + data[:whole] if whole else b""

    def finish(self) -> bytes:
        data = b"" if self._streamed else b"".join(self._kept)
        whole = len(data) & ~1
        return self._header(whole if not self._streamed else None) + data[:whole]

    def _header(self, data_bytes: int | None) -> bytes:
        due, self._header_due = self._header_due, False
        return wav_header(self._sample_rate_hz, data_bytes) if due else b""


def wav_header(sample_rate_hz: int, data_bytes: int | None) -> bytes:
    """Return the 44-byte header for a number of bytes of 16-bit mono PCM; None if it is not known yet."""
    size = _UNKNOWN if data_bytes is None else min(data_bytes, _UNKNOWN)
    riff = struct.pack("<4sI4s", b"RIFF", min(size + 36, _UNKNOWN), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate_hz, 2 * sample_rate_hz, 2, 16)
    return riff + form + struct.pack("<4sI", b"data", size)
