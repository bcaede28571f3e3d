"""Requests to transcription models, and the text that they return."""

from __future__ import annotations

import msgspec

from localapi.worker.protocol.speech import WordTime


class Transcribe(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: transcribe this audio file."""

    id: int
    path: str
    """An audio or video file on this machine. The server deletes it after the request."""
    max_seconds: float
    """Maximum length; a longer file is refused."""
    language: str | None = None
    """Spoken language, as an ISO 639 code such as "en"; None to detect it."""
    prompt: str | None = None
    """Example text that shows names and style to the engine."""
    temperature: float | None = None
    """Temperature; None for the engine's default."""
    translate: bool = False
    """True to translate into English, whatever the spoken language."""
    words: bool = False
    """True if the times of words are requested."""


class Listening(msgspec.Struct, tag=True):
    """Progress of a transcription."""

    id: int
    done_seconds: float
    total_seconds: float
    """Length of the file; 0 if the file does not state it."""


class TranscriptSegment(msgspec.Struct, kw_only=True):
    """Speech between two pauses, as text. Times are in seconds of the file; numbers are finite."""

    start_seconds: float
    end_seconds: float
    text: str
    words: list[WordTime] = []
    """Words, if the request asks for them."""
    tokens: list[int] = []
    temperature: float = 0.0
    avg_logprob: float = 0.0
    """Average log probability of the tokens; this and the next two are 0 if the engine does not report them."""
    compression_ratio: float = 0.0
    """Compressibility of the text; high if the model repeats itself."""
    no_speech_prob: float = 0.0


class Heard(msgspec.Struct, tag=True):
    """Next segments of a transcript."""

    id: int
    segments: list[TranscriptSegment]


class Transcribed(msgspec.Struct, tag=True):
    """The transcript is complete; nothing follows for this id."""

    id: int
    seconds: float
    """Length of the audio."""
    language: str | None = None
    """Language, as in Transcribe; None if the engine does not report it."""
