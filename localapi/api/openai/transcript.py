"""Transcript in the formats of OpenAI's endpoint: JSON, text and subtitles, whole or as events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType
from quart import Response

from localapi.audio.languages import language_name
from localapi.http.replies import json_reply
from localapi.text.subtitles import Caption, srt, vtt
from localapi.worker.protocol import Event, Heard, Transcribed, TranscriptSegment

Granularity = Literal["word", "segment"]
TEXT: Final = "text/plain; charset=utf-8"
SRT: Final = "application/x-subrip; charset=utf-8"
VTT: Final = "text/vtt; charset=utf-8"


class DurationUsage(Struct, tag_field="type", tag="duration"):
    """Length of the transcribed audio, in seconds."""

    seconds: float


class TranscribedWord(Struct, kw_only=True):
    """Times of a word, in seconds."""

    word: str
    start: float
    end: float


class TranscribedSegment(Struct, kw_only=True):
    """Part of the text. Values that the engine does not report are 0."""

    id: int
    seek: int
    """Position in hundredths of a second."""
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class Transcription(Struct, kw_only=True):
    """The text of a file."""

    text: str
    usage: DurationUsage


class VerboseTranscription(Struct, kw_only=True):
    """Text of a file, with its times."""

    task: Literal["transcribe", "translate"]
    language: str
    """English name of the spoken language."""
    duration: float
    text: str
    segments: list[TranscribedSegment] | UnsetType = UNSET
    words: list[TranscribedWord] | UnsetType = UNSET
    usage: DurationUsage


class TextDelta(Struct, tag_field="type", tag="transcript.text.delta"):
    """Next text of a stream; its times, in seconds, only for `verbose_json`."""

    delta: str
    start: float | UnsetType = UNSET
    end: float | UnsetType = UNSET


class TextDone(Struct, tag_field="type", tag="transcript.text.done", kw_only=True):
    """End of a stream, with the whole text; the rest only for `verbose_json`."""

    text: str
    language: str | UnsetType = UNSET
    duration: float | UnsetType = UNSET
    segments: list[TranscribedSegment] | UnsetType = UNSET
    words: list[TranscribedWord] | UnsetType = UNSET


@dataclass
class Transcript:
    """Transcript as far as it has arrived."""

    translated: bool
    granularities: Sequence[Granularity]
    segments: list[TranscriptSegment] = field(default_factory=list)
    seconds: float = 0.0
    language: str | None = None

    def add(self, event: Event) -> None:
        """Add an event of the engine."""
        if isinstance(event, Heard):
            self.segments += event.segments
        elif isinstance(event, Transcribed):
            self.seconds, self.language = event.seconds, event.language

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments).strip()

    def reply(self, response_format: str) -> Response:
        """Return the whole transcript in a format."""
        match response_format:
            case "text":
                return Response(f"{self.text}\n", content_type=TEXT)
            case "srt":
                return Response(srt(self._captions()), content_type=SRT)
            case "vtt":
                return Response(vtt(self._captions()), content_type=VTT)
            case "verbose_json":
                return json_reply(self._verbose())
            case _:
                return json_reply(Transcription(text=self.text, usage=self._usage()))

    def events(self, event: Event, *, verbose: bool) -> Iterator[TextDelta | TextDone]:
        """Add an event of the engine, and yield the stream's events for it. The deltas together are the text."""
        if isinstance(event, Heard):
            for segment in event.segments:
                text = segment.text if self.segments else segment.text.lstrip()
                self.segments.append(segment)
                delta = TextDelta(text)
                if verbose:
                    delta.start, delta.end = segment.start_seconds, segment.end_seconds
                yield delta
        elif isinstance(event, Transcribed):
            self.add(event)
            done = TextDone(text=self.text)
            if verbose:
                whole = self._verbose()
                done.language, done.duration = whole.language, whole.duration
                done.segments, done.words = whole.segments, whole.words
            yield done

    def _captions(self) -> list[Caption]:
        return [Caption(each.start_seconds, each.end_seconds, each.text) for each in self.segments]

    def _usage(self) -> DurationUsage:
        return DurationUsage(round(self.seconds, 3))

    def _verbose(self) -> VerboseTranscription:
        return VerboseTranscription(
            task="translate" if self.translated else "transcribe",
            language=language_name(self.language),
            duration=round(self.seconds, 3),
            text=self.text,
            segments=self._segments() if "segment" in self.granularities else UNSET,
            words=self._words() if "word" in self.granularities else UNSET,
            usage=self._usage(),
        )

    def _segments(self) -> list[TranscribedSegment]:
        return [
            TranscribedSegment(
                id=at,
                seek=round(100 * each.start_seconds),
                start=each.start_seconds,
                end=each.end_seconds,
                text=each.text,
                tokens=each.tokens,
                temperature=each.temperature,
                avg_logprob=each.avg_logprob,
                compression_ratio=each.compression_ratio,
                no_speech_prob=each.no_speech_prob,
            )
            for at, each in enumerate(self.segments)
        ]

    def _words(self) -> list[TranscribedWord]:
        words = (word for segment in self.segments for word in segment.words)
        return [TranscribedWord(word=each.text, start=each.start_seconds, end=each.end_seconds) for each in words]
