"""The backend echo for transcription: tells how long the sound is, for trying the API and for tests of clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from localapi.audio.decoder import Decoded, NotAudio, decode_file
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.in_process import InProcessEngine
from localapi.backends.transcription import TranscriptionOptions
from localapi.errors import InvalidRequest
from localapi.worker.protocol import (
    Event,
    Heard,
    Listening,
    Request,
    Transcribe,
    Transcribed,
    TranscriptSegment,
    WordTime,
)

SEGMENT_SECONDS: Final = 10.0
SAMPLE_RATE_HZ: Final = 16_000
BYTES_PER_SECOND: Final = 2 * SAMPLE_RATE_HZ
SEGMENT_BYTES: Final = int(SEGMENT_SECONDS * BYTES_PER_SECOND)


class EchoTranscription(TranscriptionOptions):
    """Options of a model that tells how much sound it has heard, every ten seconds."""

    backend: Annotated[Literal["echo"], Field(description="No model: tells how long the sound is, to try clients.")]

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoTranscriptionEngine()


class EchoTranscriptionEngine(InProcessEngine):
    """Engine that decodes a file in threads, bit by bit."""

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        if not isinstance(request, Transcribe):
            raise InvalidRequest("This is a transcription model: use POST /v1/audio/transcriptions.")
        sound = _Sound(decode_file(Path(request.path), sample_rate_hz=SAMPLE_RATE_HZ, max_seconds=request.max_seconds))
        done, seconds = 0.0, SEGMENT_SECONDS
        try:
            while seconds == SEGMENT_SECONDS:
                seconds = await asyncio.to_thread(sound.next_seconds)
                if seconds:
                    yield Heard(request.id, [_segment(done, done + seconds, request)])
                    done += seconds
                    yield Listening(request.id, done, sound.total_seconds)
        except NotAudio as error:
            raise InvalidRequest(str(error), param="file") from error
        yield Transcribed(request.id, round(done, 3), request.language or "en")


class _Sound:
    """The sound of a file in segments, of which only the length counts."""

    def __init__(self, decoded: Iterator[Decoded]) -> None:
        self._decoded = decoded
        self._bytes = 0
        """Decoded, and in no segment yet."""
        self.total_seconds = 0.0

    def next_seconds(self) -> float:
        """Return the length of the next segment; only the last one is shorter than the others. Blocks."""
        while self._bytes < SEGMENT_BYTES:
            piece = next(self._decoded, None)
            if piece is None:
                return self._bytes / BYTES_PER_SECOND
            self._bytes += len(piece.pcm)
            self.total_seconds = piece.total_seconds
        self._bytes -= SEGMENT_BYTES
        return SEGMENT_SECONDS


def _segment(start: float, end: float, request: Transcribe) -> TranscriptSegment:
    said = ["Sound", "from", f"{start:.1f}", "to", f"{end:.1f}", "seconds."]
    words = []
    if request.words:
        each = (end - start) / len(said)
        for at, word in enumerate(said):
            words.append(WordTime(word, round(start + at * each, 3), round(start + (at + 1) * each, 3)))
    text = " " + " ".join(said)
    return TranscriptSegment(start_seconds=round(start, 3), end_seconds=round(end, 3), text=text, words=words)
