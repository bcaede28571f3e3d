"""`POST /v1/audio/speech`: text to speech. Audio is sent while it is generated, as a file or as server-sent events."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType
from quart import Blueprint, Response

from localapi.api.openai.forwarded_speech import forwarded_speech
from localapi.api.openai.speech_request import SpeechRequest, parse_speech
from localapi.api.openai.wire import EventStream
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, MEGABYTE, Operation, Operations
from localapi.api.speech.cache import SpeechCache
from localapi.api.speech.recording import SaidSegment
from localapi.api.speech.reference_audio import LONGEST_WRITTEN
from localapi.api.speech.speaking import Piece, Speech
from localapi.audio.formats import FORMATS
from localapi.backends.speech import SpeechOptions
from localapi.errors import ApiError
from localapi.http import body
from localapi.http.replies import json_reply
from localapi.kinds import SPEECH
from localapi.runtime.registry import Registry

FRAMES_PER_SECOND: Final = 50
"""Audio tokens per second in usage: OpenAI has no public rule, so frames of 20 ms are counted, as in codecs."""
MAX_BODY_BYTES: Final = 2 * LONGEST_WRITTEN + MEGABYTE
"""Maximum size of a text with the two recordings that a request can contain (ref_audio, source_audio)."""


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("speech", __name__)
    cache = SpeechCache()

    @blueprint.post("/v1/audio/speech")
    async def create_speech() -> Response:
        content = await body.read_object()
        if _is_forwarded(registry, content.get("model")):
            return await forwarded_speech(registry, content)
        return await spoken(registry, content, cache)

    return blueprint


def _is_forwarded(registry: Registry, model: object) -> bool:
    """Return whether a model is on another server. A pool's members may be anywhere, so its audio is made here."""
    try:
        entry = registry.resolve(str(model), SPEECH)
    except ApiError:  # raised again when the rest of the request has been read
        return False
    return isinstance(entry.options, SpeechOptions) and entry.options.forwards


class TimedWord(Struct, kw_only=True):
    word: str
    start: float
    end: float


class TimedSegment(Struct, kw_only=True):
    """Times of a part of the text, in seconds."""

    text: str
    start: float
    end: float
    words: list[TimedWord] | UnsetType = UNSET


class SpeechUsage(Struct, kw_only=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class TimedSpeech(Struct, kw_only=True):
    """Audio file in base64, with the times of each part."""

    audio: str
    format: str
    content_type: str
    duration_seconds: float
    timestamps: list[TimedSegment]
    usage: SpeechUsage
    notes: list[str]


class AudioDelta(Struct, tag_field="type", tag="speech.audio.delta"):
    """Next part of the file, in base64."""

    audio: str


class AudioTimestamps(Struct, tag_field="type", tag="speech.audio.timestamps"):
    timestamps: list[TimedSegment]


class AudioDone(Struct, tag_field="type", tag="speech.audio.done"):
    usage: SpeechUsage
    notes: list[str] | UnsetType


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/audio/speech"): Operation(
        summary="Convert text to speech.",
        content={**{each.content_type: None for each in FORMATS.values()}, EVENTS: None, JSON: TimedSpeech},
        body=SpeechRequest,
        example={"input": "Good morning!"},
        max_body_bytes=MAX_BODY_BYTES,
        errors=ERRORS_OF_WORK,
    ),
}


async def spoken(registry: Registry, content: dict[str, Any], cache: SpeechCache) -> Response:
    """Return the reply in the requested shape. Raise ApiError before anything is sent."""
    request = parse_speech(content)
    neutral = request.neutral()
    with neutral.in_words_of_client():
        speech = Speech(registry, neutral, cache)
        await speech.prepare()
        if request.stream_format == "sse":
            events: EventStream[Piece] = EventStream(lambda piece: _events(speech, piece), end=b"")
            reply = await speech.generation.stream(speech.ahead(), events)
        elif request.timestamps is not None:
            reply = json_reply(_timed_speech(speech, await speech.whole()))
        else:
            reply = await speech.file()
    return speech.named(reply)


def _timed_speech(speech: Speech, pieces: list[Piece]) -> TimedSpeech:
    return TimedSpeech(
        audio=base64.b64encode(b"".join(piece.data for piece in pieces)).decode(),
        format=speech.format.name,
        content_type=speech.format.content_type,
        duration_seconds=round(speech.seconds, 3),
        timestamps=[said for piece in pieces for said in _times(speech, piece.segments)],
        usage=_usage(speech),
        notes=speech.notes,
    )


def _events(speech: Speech, piece: Piece) -> Iterator[AudioDelta | AudioTimestamps | AudioDone]:
    """Yield server-sent events with OpenAI's names, and `speech.audio.timestamps` if times were requested."""
    if piece.data:
        yield AudioDelta(base64.b64encode(piece.data).decode())
    if speech.request.timestamps is not None and piece.segments:
        yield AudioTimestamps(list(_times(speech, piece.segments)))
    if piece.last:
        yield AudioDone(_usage(speech), speech.notes or UNSET)


def _times(speech: Speech, segments: list[SaidSegment]) -> Iterator[TimedSegment]:
    for segment in segments:
        for each in speech.sentences(segment):
            said = TimedSegment(text=each.text, start=round(each.start_seconds, 3), end=round(each.end_seconds, 3))
            if speech.request.timestamps == "word":
                said.words = [
                    TimedWord(word=word.text, start=round(word.start_seconds, 3), end=round(word.end_seconds, 3))
                    for word in each.words
                ]
            yield said


def _usage(speech: Speech) -> SpeechUsage:
    read, made = len(speech.request.input), round(speech.seconds * FRAMES_PER_SECOND)
    return SpeechUsage(input_tokens=read, output_tokens=made, total_tokens=read + made)
