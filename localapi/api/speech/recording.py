"""Speech as the bytes of one file: segments joined, at the requested speed, encoded.

This module knows audio and the protocol's events, but not HTTP. Its work takes milliseconds per second of audio, so it
is done in threads and never on the event loop.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from localapi.audio.encoder import Encoder, encoded
from localapi.audio.formats import Format
from localapi.audio.joins import Join
from localapi.audio.tempo import Tempo
from localapi.errors import GenerationFailed
from localapi.worker.protocol import Sound, WordTime, WordTimes

BYTES_PER_SAMPLE: Final = 2


@dataclass
class SaidSegment:
    """Times of a segment, or of several that form one sentence, in seconds of the file."""

    index: int
    last: int
    start_seconds: float
    end_seconds: float
    words: list[WordTime]


class Recording:
    """One file. `whole` holds everything back until the end, so that the file's header contains its length."""

    def __init__(
        self,
        format: Format,  # noqa: A002  # OpenAI's word
        *,
        speeds: Sequence[float],
        silence_seconds: float,
        whole: bool,
        goes_on: Container[int] = (),
        pauses: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        """Start a file. `speeds` are the factors by which each segment is sped up.

        `goes_on` are the segments whose sentence continues in the next one, without silence in between. `pauses` are
        seconds before segments that replace the silence; the one after the last segment is at the end.
        """
        self._format = format
        self._goes_on = goes_on
        self._unfinished: SaidSegment | None = None
        """Sentence of which more segments follow."""
        self._speeds = speeds
        self._pauses = pauses
        self._silence_seconds = silence_seconds
        self._whole = bytearray() if whole else None
        self._join: Join | None = None
        self._tempo: Tempo | None = None
        self._encoder: Encoder | None = None
        self._rate_hz = 0
        self._segment_bytes = 0
        self._times: dict[int, list[WordTime]] = {}
        self.segments: list[SaidSegment] = []
        """Complete segments."""
        self._index = -1
        self._start_seconds = 0.0
        self._pause_at_end = 0.0

    @property
    def seconds(self) -> float:
        """Length of the speech so far."""
        return self._start_seconds + self._said_seconds() + self._pause_at_end

    def add(self, sound: Sound) -> bytes:
        """Return the file's next bytes, if any. Raise GenerationFailed if the engine changes its sample rate."""
        if self._join is None:
            self._open(sound.sample_rate_hz)
        elif sound.sample_rate_hz != self._rate_hz:
            raise GenerationFailed(f"The engine changed from {self._rate_hz} to {sound.sample_rate_hz} Hz in one text.")
        data = b""
        if sound.segment != self._index:
            data = self._end_segment()
            self._begin_segment(sound.segment)
        return data + self._feed(sound.pcm if self._tempo is None else self._tempo.feed(sound.pcm))

    def note(self, times: WordTimes) -> None:
        """Add the times of a segment's words."""
        self._times.setdefault(times.segment, []).extend(times.words)

    def finish(self) -> bytes:
        """Return the last bytes, or all bytes of a whole file. Raise GenerationFailed if there was no sound."""
        if self._encoder is None:
            raise GenerationFailed("The engine generated no audio.")
        data = self._end_segment()
        if self._unfinished is not None:  # the rest of it made no sound
            self.segments.append(self._unfinished)
        self._pause_at_end = self._pause_before(len(self._speeds)) or 0.0
        data += self._write(bytes(BYTES_PER_SAMPLE * round(self._pause_at_end * self._rate_hz)))
        if self._whole is not None:
            return encoded(bytes(self._whole), self._format, self._rate_hz)
        return data + self._encoder.finish()

    def close(self) -> None:
        """Release all resources, whether complete or not."""
        for part in (self._tempo, self._encoder):
            if part is not None:
                part.close()

    def _open(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._join = Join(rate_hz, silence_seconds=self._silence_seconds)
        self._encoder = Encoder(self._format, rate_hz)

    def _said_seconds(self) -> float:
        """Return the length of the current segment in seconds."""
        return self._segment_bytes / BYTES_PER_SAMPLE / self._rate_hz if self._rate_hz else 0.0

    def _pause_before(self, index: int) -> float | None:
        """Return the seconds of pause that markup sets since the last segment with sound; None if it sets none."""
        named = [self._pauses[each] for each in range(self._index + 1, index + 1) if each in self._pauses]
        return sum(named) if named else None

    def _begin_segment(self, index: int) -> None:
        pause = self._pause_before(index)
        if pause is not None:
            assert self._join is not None  # noqa: S101  # it was opened
            self._join.pause(pause)
        elif self.segments and self._unfinished is None:
            pause = self._silence_seconds
        self._start_seconds += pause or 0.0
        self._index = index
        speed = self._speeds[index]
        self._tempo = Tempo(self._rate_hz, speed) if speed != 1 else None

    def _end_segment(self) -> bytes:
        if self._index < 0 or self._join is None:
            return b""
        data = b""
        if self._tempo is not None:
            data = self._feed(self._tempo.finish())
            self._tempo.close()
        start, end = self._start_seconds, self._start_seconds + self._said_seconds()
        speed = self._speeds[self._index]
        words = [
            WordTime(word.text, start + word.start_seconds / speed, start + word.end_seconds / speed)
            for word in self._times.pop(self._index, ())
        ]
        said = SaidSegment(self._index, self._index, start, end, words)
        if self._unfinished is not None:
            begun = self._unfinished
            said = SaidSegment(begun.index, said.last, begun.start_seconds, said.end_seconds, begun.words + said.words)
        goes_on = self._index in self._goes_on
        self._unfinished = said if goes_on else None
        if not goes_on:
            self.segments.append(said)
        self._start_seconds, self._segment_bytes = end, 0
        return data + self._write(self._join.end_segment(silence=not goes_on))

    def _feed(self, pcm: bytes) -> bytes:
        """Return the file's next bytes for sound whose speed is already adjusted."""
        self._segment_bytes += len(pcm)
        assert self._join is not None  # noqa: S101  # it was opened
        return self._write(self._join.feed(pcm))

    def _write(self, pcm: bytes) -> bytes:
        if self._whole is not None:
            self._whole += pcm
            return b""
        assert self._encoder is not None  # noqa: S101  # it was opened
        return self._encoder.encode(pcm)
