"""One request for speech, from its neutral form to the pieces of a file. This module knows no wire format.

A dialect prepares the request, then sends the file as it is (`file`), or the pieces in its own shape (`pieces`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from quart import Response

from localapi.api.operation import MEGABYTE
from localapi.api.speech.cache import FinishedSpeech, SpeechCache, content_key
from localapi.api.speech.known_voices import loaded_engine
from localapi.api.speech.neutral_speech import NeutralSpeech
from localapi.api.speech.preparing import Prepared, prepared_speech
from localapi.api.speech.recording import BYTES_PER_SAMPLE, Recording, SaidSegment
from localapi.api.speech.voice_choice import Line
from localapi.audio.formats import Format
from localapi.errors import InvalidRequest
from localapi.http import body, request_context
from localapi.http.generation import begin, request_ids
from localapi.http.read_ahead import OBJECT_BYTES, Ahead
from localapi.http.replies import streamed_reply
from localapi.kinds import SPEECH
from localapi.kinds.speech import CHARACTERS, SECONDS, TIME_TO_FIRST_SOUND, speech_options
from localapi.manifest import fingerprint
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.text.writing_systems import weight
from localapi.worker.protocol import Event, Sound, Speak, Spoken, WordTime, WordTimes

log = logging.getLogger(__name__)

HAVE_LENGTH: Final = frozenset({"wav", "flac"})
"""Formats whose header contains the file's length, which is worth waiting for if the file is short."""
SHORT_WEIGHT: Final = 50
"""Letters; a shorter text, or a single sentence, gets a file with its length."""
MARKUP_HEADER: Final = "x-ignored-markup"
"""Header that lists ignored SSML markup."""
SCRIPT_HEADER: Final = "x-unread-scripts"
"""Header that lists scripts which the voice cannot read."""
BEGINNING_SECONDS: Final = 0.25
"""Length of the first audio that is encoded and sent; every format gives bytes after that much."""


@dataclass(frozen=True)
class Piece:
    """Part of a reply that is ready."""

    data: bytes
    segments: list[SaidSegment]
    last: bool = False


@dataclass(frozen=True)
class SaidSentence:
    """A sentence with its times, in seconds of the file."""

    text: str
    start_seconds: float
    end_seconds: float
    words: list[WordTime]


class Speech:
    """One request. Call `prepare` first."""

    _prepared: Prepared

    def __init__(self, registry: Registry, request: NeutralSpeech, cache: SpeechCache) -> None:
        self.request = request
        self.generation = begin(registry, request.model, SPEECH)
        self.seconds = 0.0
        """Length of the speech, once it is complete."""
        self._registry = registry
        self._cache = cache
        self._notes: list[str] = []

    async def prepare(self) -> None:
        """Check the request against the current entry. Raise InvalidRequest."""
        entry = self.generation.expected
        self._prepared = await prepared_speech(self.request, entry, loaded_engine(self._registry, entry))

    @property
    def format(self) -> Format:
        """Format of the file, by the leased entry, because the manifest may have changed since the request arrived."""
        return self._prepared.format

    @property
    def notes(self) -> list[str]:
        """Parts of the request that had no effect."""
        cast = self._prepared.cast
        ignored = [f"ignored markup: {', '.join(cast.ignored)}"] if cast.ignored else []
        unread = [f"scripts that the voice cannot read: {', '.join(cast.unread)}"] if cast.unread else []
        return [*ignored, *unread, *self._notes]

    def sentences(self, segment: SaidSegment) -> Iterator[SaidSentence]:
        """Yield the sentences of a segment.

        Sentences spoken in one call share its time in proportion to their letters.
        """
        prepared = self._prepared
        text = prepared.cast.text(segment.index, segment.last)
        together = [(text, 1.0)]
        if not speech_options(prepared.entry.options).says_sentences_apart:
            from localapi.text.sentences import shares  # noqa: PLC0415  # costly, and loaded with the script

            together = shares(text, language=prepared.settings.language)
        start, seconds = segment.start_seconds, segment.end_seconds - segment.start_seconds
        for sentence, share in together:
            end = start + share * seconds
            yield SaidSentence(sentence, start, end, segment.words)
            start = end

    # The reply

    async def file(self) -> Response:
        """Return only the file, streamed from the first audio on unless it must have a length."""
        texts = [line.text for line in self._prepared.cast.lines]
        is_short = len(texts) == 1 or sum(map(weight, texts)) <= SHORT_WEIGHT
        short = is_short and self.format.name in HAVE_LENGTH
        whole = self.request.stream is False or (short and self.request.stream is None)
        if whole:
            data = b"".join([piece.data for piece in await self.whole()])
            return Response(data, content_type=self.format.content_type)
        pieces = self.ahead()
        request_context.current().held.push_async_callback(pieces.close)
        await pieces.begun(None)  # an error can still set the status
        return streamed_reply(self._data(pieces), self.format.content_type)

    async def whole(self) -> list[Piece]:
        """Return all pieces of a file whose header contains its length. Raise ApiError."""
        async with aclosing(self._pieces(whole=True)) as pieces:
            return [piece async for piece in pieces]

    def ahead(self) -> Ahead[Piece]:
        """Return the pieces of a file that is sent while it is generated."""
        return Ahead(self._pieces(whole=False), size=_piece_bytes)

    async def _data(self, pieces: Ahead[Piece]) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes. Raise BrokenOff if generation fails, because the status is already sent."""
        with request_context.broken_off(self.generation.entry.id):
            while (piece := await pieces.get()) is not None:
                if piece.data:
                    yield piece.data

    def named(self, reply: Response) -> Response:
        """Name in reply headers the parameters without effect, and the member of a pool that answered."""
        for header, names, what, level in (
            (body.UNSUPPORTED_HEADER, self._prepared.unsupported, "not supported by the engine", logging.WARNING),
            (MARKUP_HEADER, self._prepared.cast.ignored, "markup ignored", logging.INFO),
            (SCRIPT_HEADER, self._prepared.cast.unread, "not readable by the voice", logging.INFO),
        ):
            body.name_in_reply(reply, header, names, what, level)
        return self.generation.name_member(body.name_ignored(self.request.ignored, reply))

    # The sound

    async def _pieces(self, *, whole: bool) -> AsyncGenerator[Piece, None]:
        """Yield cached speech for the same request, or generate it. Raise ApiError."""
        prepared = self._prepared
        most_bytes = prepared.settings.speech_cache_mb * MEGABYTE
        if most_bytes == 0:
            async with aclosing(self._said_now(whole=whole)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        entry_id, key = prepared.entry.id, await asyncio.to_thread(self._content_key, prepared, whole=whole)
        if (kept := self._cache.get(entry_id, key)) is not None:
            self.seconds, self._notes = kept.segments[-1].end_seconds, kept.notes
            log.info("%s: %.1f s of speech, cached (%s)", entry_id, self.seconds, request_context.current().id)
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
        """Return whether this key still stands for the generated speech: a reload may have changed it."""
        return await asyncio.to_thread(self._content_key, self._prepared, whole=whole) == key

    def _content_key(self, prepared: Prepared, *, whole: bool) -> bytes:
        return content_key(
            fingerprint(prepared.entry.identity),
            [(line.text, line.voice, line.speed) for line in prepared.cast.lines],
            sorted(prepared.cast.pauses.items()),
            prepared.format.name,
            prepared.settings.sentence_silence_ms,
            sorted(prepared.options.items()),
            self.request.timestamps,
            whole,
        )

    async def _said_now(self, *, whole: bool) -> AsyncGenerator[Piece, None]:
        """Lease the model and let it speak. Raise ApiError, such as InvalidRequest if the text makes no sound."""
        async with aclosing(self.generation.through(lambda lease: self._said(lease, whole=whole))) as pieces:
            async for piece in pieces:
                yield piece

    async def _said(self, lease: Lease, *, whole: bool) -> AsyncGenerator[Piece, None]:
        prepared = self._prepared
        # The loaded model lists voices that were unknown before.
        knows_more = prepared.known is None and lease.engine.loaded.voices is not None
        if prepared.entry != lease.entry or knows_more:
            prepared = self._prepared = await prepared_speech(self.request, lease.entry, lease.engine)
        self._notes = []  # another member of the pool may have had some
        async with aclosing(self._heard(lease, prepared)) as events:
            pieces = self._recorded(events, prepared, whole=whole)
            if whole:  # nothing is sent before the end, so until then a pool may start again
                for piece in [each async for each in pieces]:
                    yield piece
                return
            async for piece in pieces:
                yield piece

    async def _heard(self, lease: Lease, prepared: Prepared) -> AsyncGenerator[Event, None]:
        """Yield the engine's events, and request each part of a long text when the previous one has been read.

        A worker does not know how quickly its audio is read; this keeps it from being ahead by more than one part.
        """
        first = 0
        for lines in prepared.parts():
            speak = self._speak(prepared, lines)
            log.debug("%s: request %d in the worker", request_context.current().id, speak.id)
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
            self.seconds = recording.seconds
            yield Piece(data, recording.segments[told:], last=True)
        finally:
            recording.close()
        counters, model = request_context.current().counters, self.generation.entry.id
        counters.count(model, CHARACTERS, len(self.request.input))
        counters.count(model, SECONDS, self.seconds)
        counters.observe(model, TIME_TO_FIRST_SOUND, first_sound - started)
        log.info(
            "%s: %.1f s of speech in %.1f s, first after %.2f s, text of %d (%s)",
            self.generation.entry.id, self.seconds, time.monotonic() - started, first_sound - started,
            len(self.request.input), request_context.current().id,
        )  # fmt: skip
        for note in self._notes:
            log.warning("%s: %s (%s)", self.generation.entry.id, note, request_context.current().id)

    def _speak(self, prepared: Prepared, lines: list[Line]) -> Speak:
        return Speak(
            id=next(request_ids),
            segments=[line.text for line in lines],
            voice=lines[0].voice,
            speed=lines[0].speed if speech_options(prepared.entry.options).has_speed else 1.0,
            options=prepared.options,
            times=self.request.timestamps == "word",
        )


def _piece_bytes(piece: Piece) -> int:
    return len(piece.data) + OBJECT_BYTES * (1 + sum(1 + len(segment.words) for segment in piece.segments))


def _begun(sound: Sound) -> Iterator[Sound]:
    """Split a sound into its start and the rest, so that the start can be sent before everything is encoded."""
    length = round(BEGINNING_SECONDS * sound.sample_rate_hz) * BYTES_PER_SAMPLE
    for pcm in (sound.pcm[:length], sound.pcm[length:]):
        if pcm:
            yield Sound(sound.id, sound.segment, pcm, sound.sample_rate_hz)
