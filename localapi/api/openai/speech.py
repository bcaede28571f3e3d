"""`POST /v1/audio/speech`: a text, spoken. The sound leaves as it is made: as a file, or as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET, Struct, UnsetType
from quart import Blueprint, Response

from localapi.api.openai.forwarded_speech import forwarded_speech
from localapi.api.openai.prepared_speech import Prepared, prepared_speech
from localapi.api.openai.recording import BYTES_PER_SAMPLE, Recording, SaidSegment
from localapi.api.openai.reference_audio import LONGEST_WRITTEN
from localapi.api.openai.speech_cache import FinishedSpeech, SpeechCache, content_key
from localapi.api.openai.speech_request import SpeechRequest, parse_speech
from localapi.api.openai.voice_choice import Line
from localapi.api.openai.voices import loaded_engine
from localapi.api.openai.wire import EventStream
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, MEGABYTE, Operation, Operations
from localapi.audio.formats import FORMATS
from localapi.backends.speech import SpeechOptions
from localapi.errors import ApiError, InvalidRequest
from localapi.http import body, request_context
from localapi.http.generation import begin, request_ids
from localapi.http.read_ahead import OBJECT_BYTES, Ahead
from localapi.http.replies import json_reply, streamed_reply
from localapi.kinds import SPEECH
from localapi.kinds.speech import CHARACTERS, SECONDS, TIME_TO_FIRST_SOUND, speech_options
from localapi.manifest import fingerprint
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.text.weight import weight
from localapi.worker.protocol import Event, Sound, Speak, Spoken, WordTimes

log = logging.getLogger(__name__)

HAVE_LENGTH: Final = frozenset({"wav", "flac"})
"""Formats whose header tells the file's length: a little of them is worth the wait."""
SHORT_WEIGHT: Final = 50
"""Letters; what is not longer, or is one sentence, gets a length."""
MARKUP_HEADER: Final = "x-ignored-markup"
"""Names what SSML says and nobody honours."""
SCRIPT_HEADER: Final = "x-unread-scripts"
"""Names the scripts that the voice does not read."""
FRAMES_PER_SECOND: Final = 50
"""Tokens of sound per second in usage: OpenAI has no public rule, so frames of 20 ms are counted, as in codecs."""
BEGINNING_SECONDS: Final = 0.25
"""Length of the first sound that is encoded and sent: every format gives bytes after so much."""
MAX_BODY_BYTES: Final = 2 * LONGEST_WRITTEN + MEGABYTE
"""A text, and the two recordings that a request can bring (ref_audio, source_audio)."""


def routes(registry: Registry) -> Blueprint:
    blueprint = Blueprint("speech", __name__)
    cache = SpeechCache()

    @blueprint.post("/v1/audio/speech")
    async def create_speech() -> Response:
        content = await body.read_object()
        if _is_forwarded(registry, content.get("model")):
            return await forwarded_speech(registry, content)
        request, ignored = parse_speech(content)
        return body.name_ignored(ignored, await Speech(registry, request, cache).reply())

    return blueprint


def _is_forwarded(registry: Registry, model: object) -> bool:
    """Return whether a model is on another server. A pool's members may be anywhere, so that its sound is made here."""
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
    """A file of sound as base64, and when each part is said."""

    audio: str
    format: str
    content_type: str
    duration_seconds: float
    timestamps: list[TimedSegment]
    usage: SpeechUsage
    notes: list[str]


class AudioDelta(Struct, tag_field="type", tag="speech.audio.delta"):
    """Some more of the file, as base64."""

    audio: str


class AudioTimestamps(Struct, tag_field="type", tag="speech.audio.timestamps"):
    timestamps: list[TimedSegment]


class AudioDone(Struct, tag_field="type", tag="speech.audio.done"):
    usage: SpeechUsage
    notes: list[str] | UnsetType


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/audio/speech"): Operation(
        summary="A text, spoken.",
        content={**{each.content_type: None for each in FORMATS.values()}, EVENTS: None, JSON: TimedSpeech},
        body=SpeechRequest,
        example={"input": "Good morning!"},
        max_body_bytes=MAX_BODY_BYTES,
        errors=ERRORS_OF_WORK,
    ),
}


@dataclass(frozen=True)
class Piece:
    """Part of a reply that is ready."""

    data: bytes
    segments: list[SaidSegment]
    last: bool = False


class Speech:
    """One reply."""

    def __init__(self, registry: Registry, request: SpeechRequest, cache: SpeechCache) -> None:
        self._registry = registry
        self._cache = cache
        self._request = request
        self._generation = begin(registry, request.model, SPEECH)
        self._notes: list[str] = []
        self._seconds = 0.0
        self._prepared: Prepared | None = None

    async def reply(self) -> Response:
        """Return the reply in the form that the request asks for. Raise ApiError before anything is sent."""
        entry = self._generation.expected
        prepared = self._prepared = await prepared_speech(self._request, entry, loaded_engine(self._registry, entry))
        if self._request.stream_format == "sse":
            pieces = Ahead(self._pieces(whole=False), size=_piece_bytes)
            reply = await self._generation.stream(pieces, EventStream(self._events, end=b""))
        elif self._request.timestamps is not None:
            reply = await self._timed()
        else:
            reply = await self._file(prepared)
        if unsupported := ", ".join(self._prepared.unsupported):
            reply.headers[body.UNSUPPORTED_HEADER] = unsupported
            log.warning(
                "%s: the engine cannot honour %s (%s)",
                self._generation.entry.id,
                unsupported,
                request_context.current().id,
            )
        for header, names, what in (
            (MARKUP_HEADER, self._prepared.cast.ignored, "the text's markup is left out"),
            (SCRIPT_HEADER, self._prepared.cast.unread, "the voice does not read"),
        ):
            if names:
                reply.headers[header] = body.in_header(names)
                log.info(
                    "%s: %s: %s (%s)", self._generation.entry.id, what, ", ".join(names), request_context.current().id
                )
        return self._generation.name_member(reply)

    # Shapes

    async def _file(self, prepared: Prepared) -> Response:
        """Return the file alone, streamed from the first sound on unless it must have a length."""
        texts = [line.text for line in prepared.cast.lines]
        is_short = len(texts) == 1 or sum(map(weight, texts)) <= SHORT_WEIGHT
        short = is_short and prepared.format.name in HAVE_LENGTH
        whole = self._request.stream is False or (short and self._request.stream is None)
        if whole:
            async with aclosing(self._pieces(whole=True)) as made:
                data = b"".join([piece.data async for piece in made])
            return Response(data, content_type=self._content_type)
        pieces = Ahead(self._pieces(whole=False), size=_piece_bytes)
        request_context.current().held.push_async_callback(pieces.close)
        await pieces.begun(None)  # an error is still a status
        return streamed_reply(self._data(pieces), self._content_type)

    @property
    def _content_type(self) -> str:
        """Content type according to the leased entry, which the manifest may have changed since the request arrived."""
        assert self._prepared is not None  # noqa: S101  # reply() begins with it
        return self._prepared.format.content_type

    async def _data(self, pieces: Ahead[Piece]) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes. Raise BrokenOff if generation fails: the status is already sent."""
        try:
            while (piece := await pieces.get()) is not None:
                if piece.data:
                    yield piece.data
        except ApiError as error:
            log.warning("%s: %s: broken off: %s", request_context.current().id, self._generation.entry.id, error.logged)
            raise request_context.BrokenOff from error
        except Exception as error:
            log.exception("%s: %s: broken off", request_context.current().id, self._generation.entry.id)
            raise request_context.BrokenOff from error

    async def _timed(self) -> Response:
        """JSON with the file and with the times."""
        async with aclosing(self._pieces(whole=True)) as ready:
            pieces = [piece async for piece in ready]
        assert self._prepared is not None  # noqa: S101  # reply() begins with it
        return json_reply(
            TimedSpeech(
                audio=base64.b64encode(b"".join(piece.data for piece in pieces)).decode(),
                format=self._prepared.format.name,
                content_type=self._prepared.format.content_type,
                duration_seconds=round(self._seconds, 3),
                timestamps=[said for piece in pieces for segment in piece.segments for said in self._times(segment)],
                usage=self._usage(),
                notes=self._told,
            )
        )

    def _events(self, piece: Piece) -> Iterator[AudioDelta | AudioTimestamps | AudioDone]:
        """Yield server-sent events as OpenAI names them, and `speech.audio.timestamps` if times were requested."""
        if piece.data:
            yield AudioDelta(base64.b64encode(piece.data).decode())
        if self._request.timestamps is not None and piece.segments:
            yield AudioTimestamps([said for segment in piece.segments for said in self._times(segment)])
        if piece.last:
            yield AudioDone(self._usage(), self._told or UNSET)

    def _times(self, segment: SaidSegment) -> Iterator[TimedSegment]:
        """Return the times of each sentence. Sentences said in one call share its time by their number of letters."""
        prepared = self._prepared
        assert prepared is not None  # noqa: S101  # reply() begins with it
        text = prepared.cast.text(segment.index, segment.last)
        together = [(text, 1.0)]
        if not speech_options(prepared.entry.options).says_sentences_apart:
            from localapi.text.sentences import shares  # noqa: PLC0415  # costly, and loaded with the script

            together = shares(text, language=prepared.settings.language)
        start, seconds = segment.start_seconds, segment.end_seconds - segment.start_seconds
        for sentence, share in together:
            end = start + share * seconds
            said = TimedSegment(text=sentence, start=round(start, 3), end=round(end, 3))
            if self._request.timestamps == "word":
                said.words = [
                    TimedWord(word=word.text, start=round(word.start_seconds, 3), end=round(word.end_seconds, 3))
                    for word in segment.words
                ]
            yield said
            start = end

    @property
    def _told(self) -> list[str]:
        """Parts of the request that had no effect."""
        assert self._prepared is not None  # noqa: S101  # reply() begins with it
        cast = self._prepared.cast
        ignored = [f"this markup is left out: {', '.join(cast.ignored)}"] if cast.ignored else []
        unread = [f"the voice does not read this script: {', '.join(cast.unread)}"] if cast.unread else []
        return [*ignored, *unread, *self._notes]

    def _usage(self) -> SpeechUsage:
        read, made = len(self._request.input), round(self._seconds * FRAMES_PER_SECOND)
        return SpeechUsage(input_tokens=read, output_tokens=made, total_tokens=read + made)

    # The sound

    async def _pieces(self, *, whole: bool) -> AsyncGenerator[Piece, None]:
        """Yield cached speech for the same request, or generate it. Raise ApiError."""
        prepared = self._prepared
        assert prepared is not None  # noqa: S101  # reply() begins with it
        most_bytes = prepared.settings.speech_cache_mb * MEGABYTE
        if most_bytes == 0:
            async with aclosing(self._said_now(whole=whole)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        entry_id, key = prepared.entry.id, await asyncio.to_thread(self._content_key, prepared, whole=whole)
        if (kept := self._cache.get(entry_id, key)) is not None:
            self._seconds, self._notes = kept.segments[-1].end_seconds, kept.notes
            log.info(
                "%s: %.1f s of speech, kept from before (%s)", entry_id, self._seconds, request_context.current().id
            )
            yield Piece(kept.data, kept.segments, last=True)
            return
        said: list[Piece] = []
        size = 0
        async with aclosing(self._said_now(whole=whole)) as pieces:
            async for piece in pieces:
                size += len(piece.data)
                if size <= most_bytes:
                    said.append(piece)
                else:
                    said.clear()
                yield piece
        if said and await self._says(key, whole=whole):
            segments = [segment for piece in said for segment in piece.segments]
            finished = FinishedSpeech(b"".join(piece.data for piece in said), segments, self._notes)
            self._cache.keep(entry_id, key, finished, most_bytes=most_bytes, entries=self._registry.entries)

    async def _says(self, key: bytes, *, whole: bool) -> bool:
        """Return whether what was said is what this key stands for: a reload may have made something else of it."""
        assert self._prepared is not None  # noqa: S101  # reply() begins with it
        return await asyncio.to_thread(self._content_key, self._prepared, whole=whole) == key

    def _content_key(self, prepared: Prepared, *, whole: bool) -> bytes:
        return content_key(
            fingerprint(prepared.entry.identity),
            [(line.text, line.voice, line.speed) for line in prepared.cast.lines],
            sorted(prepared.cast.pauses.items()),
            prepared.format.name,
            prepared.settings.sentence_silence_ms,
            sorted(prepared.options.items()),
            self._request.timestamps,
            whole,
        )

    async def _said_now(self, *, whole: bool) -> AsyncGenerator[Piece, None]:
        """Lease the model and let it speak. Raise ApiError, such as InvalidRequest if the text makes no sound."""
        async with aclosing(self._generation.through(lambda lease: self._said(lease, whole=whole))) as pieces:
            async for piece in pieces:
                yield piece

    async def _said(self, lease: Lease, *, whole: bool) -> AsyncGenerator[Piece, None]:
        prepared = self._prepared
        # Voices that nobody knew before are known now that the model is loaded.
        knows_more = prepared is not None and prepared.known is None and lease.engine.loaded.voices is not None
        if prepared is None or prepared.entry != lease.entry or knows_more:
            prepared = self._prepared = await prepared_speech(self._request, lease.entry, lease.engine)
        async with aclosing(self._heard(lease, prepared)) as events:
            async for piece in self._recorded(events, prepared, whole=whole):
                yield piece

    async def _heard(self, lease: Lease, prepared: Prepared) -> AsyncGenerator[Event, None]:
        """Yield the engine's events, and request each part of a long text when the one before has been read.

        A worker does not know how quickly its sound is read; this keeps it from running ahead by more than a part.
        """
        first = 0
        for lines in prepared.parts():
            speak = self._speak(prepared, lines)
            log.debug("%s: the worker calls it request %d", request_context.current().id, speak.id)
            async with aclosing(lease.answer(speak)) as events:
                async for item in events:
                    if isinstance(item, Sound | WordTimes):
                        item.segment += first
                    yield item
            first += len(lines)

    async def _recorded(
        self, events: AsyncIterator[Event], prepared: Prepared, *, whole: bool
    ) -> AsyncGenerator[Piece, None]:
        started, first_sound = time.monotonic(), None
        has_speed = speech_options(prepared.entry.options).has_speed
        recording = Recording(
            prepared.format,
            speeds=[1.0 if has_speed else line.speed for line in prepared.cast.lines],
            silence_seconds=prepared.settings.sentence_silence_ms / 1000,
            whole=whole,
            pauses=prepared.cast.pauses,
            goes_on=prepared.cast.goes_on,
        )
        told = 0
        try:
            async for item in events:
                if isinstance(item, Sound) and item.pcm:
                    parts = _begun(item) if first_sound is None else (item,)
                    first_sound = first_sound or time.monotonic()
                    for part in parts:
                        data = await asyncio.to_thread(recording.add, part)
                        if data or len(recording.segments) > told:
                            yield Piece(data, recording.segments[told:])
                            told = len(recording.segments)
                elif isinstance(item, WordTimes):
                    recording.note(item)
                elif isinstance(item, Spoken):
                    self._notes += [note for note in item.notes if note not in self._notes]
            if first_sound is None:
                raise InvalidRequest("Nothing in the text makes a sound with this voice.", param="input")
            data = await asyncio.to_thread(recording.finish)
            self._seconds = recording.seconds
            yield Piece(data, recording.segments[told:], last=True)
        finally:
            recording.close()
        counters, model = request_context.current().counters, self._generation.entry.id
        counters.count(model, CHARACTERS, len(self._request.input))
        counters.count(model, SECONDS, self._seconds)
        counters.observe(model, TIME_TO_FIRST_SOUND, first_sound - started)
        log.info(
            "%s: %.1f s of speech in %.1f s, first after %.2f s, text of %d (%s)",
            self._generation.entry.id, self._seconds, time.monotonic() - started, first_sound - started,
            len(self._request.input), request_context.current().id,
        )  # fmt: skip
        for note in self._notes:
            log.warning("%s: %s (%s)", self._generation.entry.id, note, request_context.current().id)

    def _speak(self, prepared: Prepared, lines: list[Line]) -> Speak:
        return Speak(
            id=next(request_ids),
            segments=[line.text for line in lines],
            voice=lines[0].voice,
            speed=lines[0].speed if speech_options(prepared.entry.options).has_speed else 1.0,
            options=prepared.options,
            times=self._request.timestamps == "word",
        )


def _piece_bytes(piece: Piece) -> int:
    return len(piece.data) + OBJECT_BYTES * (1 + sum(1 + len(segment.words) for segment in piece.segments))


def _begun(sound: Sound) -> Iterator[Sound]:
    """Split a sound into its beginning and the rest, so that the beginning need not wait until all is encoded."""
    length = round(BEGINNING_SECONDS * sound.sample_rate_hz) * BYTES_PER_SAMPLE
    for pcm in (sound.pcm[:length], sound.pcm[length:]):
        if pcm:
            yield Sound(sound.id, sound.segment, pcm, sound.sample_rate_hz)
