"""Transcription models: speech to text."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

from msgspec import Meta

from localapi.backends.command import CommandTranscription
from localapi.backends.echo import EchoTranscription
from localapi.backends.openai import OpenAITranscription
from localapi.backends.options import EntryOptions
from localapi.backends.pool import TranscriptionPool
from localapi.backends.recognition import transcription_backend
from localapi.backends.transcription import (
    AutoTranscription,
    FasterWhisper,
    MlxAudioTranscription,
    TranscriptionOptions,
)
from localapi.kinds.kind import Kind, ModelObject, Variables, by_name
from localapi.observability.counters import FIRST_SECONDS, Metric
from localapi.worker.protocol import Loaded

SECONDS: Final = Metric("transcription_seconds", "Seconds of transcribed audio.")
CHARACTERS: Final = Metric("transcription_characters", "Characters of transcripts.")
TIME_TO_FIRST_SEGMENT: Final = Metric(
    "time_to_first_segment_seconds", "Time from the complete request to the first text.", FIRST_SECONDS
)


def transcription_options(options: EntryOptions) -> TranscriptionOptions:
    """Return the options of an entry that is known to be in this section."""
    assert isinstance(options, TranscriptionOptions)  # noqa: S101
    return options


class TranscriptionModel(ModelObject, kw_only=True):
    """A transcription model."""

    max_file_bytes: Annotated[int, Meta(description="Maximum size of a file.")] = 0
    max_seconds: Annotated[float | None, Meta(description="Maximum length of audio; null: no limit.")] = None

    def describe(self, options: EntryOptions, loaded: Loaded | None) -> None:
        transcription = transcription_options(options)
        self.max_file_bytes = transcription.max_file_mb * 2**20
        self.max_seconds = transcription.max_duration if transcription.max_duration < float("inf") else None

    def as_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"max_duration": "forever" if self.max_seconds is None else self.max_seconds}
        if self.max_file_bytes:
            options["max_file_mb"] = math.ceil(self.max_file_bytes / 2**20)
        return options


TRANSCRIPTION: Final = Kind(
    name="transcription",
    description="Transcription models by id.",
    options=TranscriptionOptions,
    backends=by_name(
        EchoTranscription,
        AutoTranscription,
        FasterWhisper,
        MlxAudioTranscription,
        OpenAITranscription,
        CommandTranscription,
        TranscriptionPool,
    ),
    usual_backend="auto",
    variables=Variables(
        entry_id="local-transcription",
        names=("TRANSCRIPTION_MODEL_ID",),
        options={"backend": ("TRANSCRIPTION_BACKEND",), "path": ("TRANSCRIPTION_MODEL_PATH",)},
        backend="auto",
    ),
    endpoints=("localapi.api.openai.transcriptions",),
    metrics=(SECONDS, CHARACTERS, TIME_TO_FIRST_SEGMENT),
    input=("audio",),
    model=TranscriptionModel,
    recognize=transcription_backend,
)
