"""Requests to transcription models, and the text that they answer with."""

from __future__ import annotations

import msgspec

from localapi.worker.protocol.speech import WordTime


class Transcribe(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: transcribe this audio file."""

    id: int
    path: str
    """An audio or video file on this machine. The server deletes it after the request."""
    max_seconds: float
    """A longer file is refused."""
    language: str | None = None
    """Language of the sound, as a code of ISO 639: "en"; None: the engine finds out."""
    prompt: str | None = None
    """Text that shows the engine names and style."""
    temperature: float | None = None
    """None: the engine's default."""
    translate: bool = False
    """True if the text is wanted in English, whatever the language of the sound."""
    words: bool = False
    """True if the times of words are wanted."""


class Listening(msgspec.Struct, tag=True):
    """The progress of a transcription."""

    id: int
    done_seconds: float
    total_seconds: float
    """0 if the file does not state its length."""


class TranscriptSegment(msgspec.Struct, kw_only=True):
    """Speech between two pauses, as text. Times are in seconds of the file; numbers are finite."""

    start_seconds: float
    end_seconds: float
    text: str
    words: list[WordTime] = []
    """Present if the request asks for them."""
    tokens: list[int] = []
    temperature: float = 0.0
    avg_logprob: float = 0.0
    """Average log probability of the tokens; this and the next two are 0 if the engine does not report them."""
    compression_ratio: float = 0.0
    """Compressibility of the text; high if the model repeats itself."""
    no_speech_prob: float = 0.0


class Heard(msgspec.Struct, tag=True):
    """The next segments of a transcript."""

    id: int
    segments: list[TranscriptSegment]


class Transcribed(msgspec.Struct, tag=True):
    """The transcript is complete; nothing follows for this id."""

    id: int
    seconds: float
    """Length of the sound."""
    language: str | None = None
    """Language, as in Transcribe; None if the engine does not report it."""
