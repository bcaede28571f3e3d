"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: from a file to text, whole or as server-sent events."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from quart import Blueprint, Response

from localapi.api.forwarded_reply import forwarded_reply
from localapi.api.openai.generation_request import unknown_fields
from localapi.api.openai.transcript import SRT, TEXT, VTT, Transcript, Transcription, VerboseTranscription
from localapi.api.openai.transcription_request import (
    TranscriptionFields,
    TranscriptionForm,
    check_for_own_engine,
    read_fields,
)
from localapi.api.openai.wire import EventStream
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, Operation, Operations
from localapi.audio.languages import language_code
from localapi.backends.transcription import TranscriptionOptions
from localapi.errors import ApiError, InvalidRequest, ModelUnavailable, RequestTooLarge
from localapi.http import body, request_context
from localapi.http.generation import Generation, begin, event_bytes, request_ids
from localapi.http.read_ahead import Ahead
from localapi.http.upload import FORM, MEGABYTE, Form, read_form
from localapi.kinds import TRANSCRIPTION
from localapi.kinds.transcription import CHARACTERS, SECONDS, TIME_TO_FIRST_SEGMENT, transcription_options
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import (
    Event,
    Forward,
    ForwardedData,
    ForwardedHead,
    Heard,
    Transcribe,
    Transcribed,
)

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 2**40
"""Limit of the route. The entry's limit is checked while the file arrives."""
MOST_REPLY_BYTES: Final = 64 * MEGABYTE
"""Maximum size of another server's reply that is not a stream."""


def routes(registry: Registry) -> Blueprint:
    """Return both endpoints."""
    blueprint = Blueprint("transcriptions", __name__)

    @blueprint.post("/v1/audio/transcriptions")
    async def transcribe() -> Response:
        return await _reply(registry, translate=False)

    @blueprint.post("/v1/audio/translations")
    async def translate() -> Response:
        return await _reply(registry, translate=True)

    return blueprint


async def _reply(registry: Registry, *, translate: bool) -> Response:
    form = await read_form("file", lambda come: _most_bytes(registry, come))
    request, content = read_fields(form.fields)
    generation = begin(registry, request.model, TRANSCRIPTION)
    if form.file is None:
        raise InvalidRequest(
            "Missing required parameter: 'file', a part of the form with a file name.",
            param="file",
            code="missing_required_parameter",
        )
    work = TranscriptionWork(generation, request, form, translate=translate)
    work.asked(transcription_options(generation.expected.options))  # refused before a model is loaded for it
    reply = await (work.stream() if request.stream else work.whole())
    if not work.forwarded:
        body.name_ignored(unknown_fields(request, content), reply)
    return generation.name_member(reply)


def _most_bytes(registry: Registry, come: Form) -> int:
    """Return the maximum size of a file: the model's if the model is already known, otherwise the largest limit."""
    try:
        entry = registry.expected(registry.resolve(come.value("model") or "", TRANSCRIPTION))
    except ApiError:  # raised again when the form has been read
        options = (each.options for each in registry.entries.values())
        limits = [each.max_file_mb for each in options if isinstance(each, TranscriptionOptions)]
        return max(limits, default=1) * MEGABYTE
    return transcription_options(entry.options).max_file_mb * MEGABYTE


@dataclass
class TranscriptionWork:
    """One request for a transcript."""

    generation: Generation
    request: TranscriptionFields
    form: Form
    translate: bool
    transcript: Transcript = field(init=False)
    forwarded: bool = False
    """True if another server's reply is passed on."""

    def __post_init__(self) -> None:
        self.transcript = self._new_transcript()
        self._started = time.monotonic()

    def asked(self, options: TranscriptionOptions) -> Transcribe | Forward:
        """Return what an engine is asked. Raise InvalidRequest and RequestTooLarge."""
        file, request = self.form.file, self.request
        assert file is not None  # noqa: S101  # it was checked
        most = options.max_file_mb * MEGABYTE
        if self.form.file_bytes > most:
            raise RequestTooLarge(
                f"The file is larger than {options.max_file_mb} MiB (max_file_mb in the manifest). Send a compressed "
                "file, such as Opus or MP3, or parts of it."
            )
        if self.form.file_bytes == 0:
            raise InvalidRequest("The file is empty.", param="file")
        if options.forwards:
            path = f"/audio/{'translations' if self.translate else 'transcriptions'}"
            return Forward(id=next(request_ids), path=path, body=self._fields(options), file=file)
        check_for_own_engine(request)
        language = request.language or options.language
        return Transcribe(
            id=next(request_ids),
            path=file.path,
            max_seconds=options.max_duration,
            language=None if language is None else language_code(language),
            prompt=request.prompt,
            temperature=request.temperature,
            translate=self.translate,
            words="word" in request.granularities,
        )

    async def whole(self) -> Response:
        """Return the whole reply."""
        return await self.generation.whole(self._requests, self._collected)

    async def stream(self) -> Response:
        """Return a stream. Another server's stream is passed on as it arrives."""
        items: Ahead[Event] = Ahead(self._noted(self.generation.events(self._requests)), size=event_bytes)
        if transcription_options(self.generation.expected.options).forwards:
            return await forwarded_reply(items, self.generation.entry.id)
        return await self.generation.stream(items, _Stream(self._events, end=b""))

    def _requests(self, lease: Lease) -> list[Transcribe | Forward]:
        ask = self.asked(transcription_options(lease.entry.options))
        self.forwarded = isinstance(ask, Forward)
        self.transcript = self._new_transcript()
        return [ask]

    def _new_transcript(self) -> Transcript:
        return Transcript(self.translate, self.request.granularities)

    async def _collected(self, events: AsyncGenerator[Event, None]) -> Response:
        head: ForwardedHead | None = None
        data: list[bytes] = []
        size = 0
        async with aclosing(self._noted(events)) as noted:
            async for event in noted:
                if isinstance(event, ForwardedHead):
                    head = event
                elif isinstance(event, ForwardedData):
                    size += len(event.data)
                    if size > MOST_REPLY_BYTES:
                        raise ModelUnavailable(f"The upstream's reply has more than {MOST_REPLY_BYTES // MEGABYTE} MB.")
                    data.append(event.data)
                else:
                    self.transcript.add(event)
        if head is not None:
            return Response(b"".join(data), content_type=head.content_type)
        return self.transcript.reply(self.request.response_format)

    def _events(self, event: Event) -> Iterator[Any]:
        return self.transcript.events(event, verbose=self.request.response_format == "verbose_json")

    async def _noted(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Yield the events, and count them."""
        first_seconds: float | None = None
        characters = 0
        counters, model = request_context.current().counters, self.generation.entry.id
        async with aclosing(events) as source:
            async for event in source:
                if isinstance(event, Heard):
                    if first_seconds is None:
                        first_seconds = time.monotonic() - self._started
                        counters.observe(model, TIME_TO_FIRST_SEGMENT, first_seconds)
                    characters += sum(len(segment.text) for segment in event.segments)
                if isinstance(event, Transcribed):
                    counters.count(model, SECONDS, event.seconds)
                    counters.count(model, CHARACTERS, characters)
                    log.info(
                        "%s: %.1f s of audio in %.1f s, first text after %s, %d characters (%s)",
                        model, event.seconds, time.monotonic() - self._started,
                        "-" if first_seconds is None else f"{first_seconds:.2f} s",
                        characters, request_context.current().id,
                    )  # fmt: skip
                yield event

    def _fields(self, options: TranscriptionOptions) -> dict[str, Any]:
        """Return the fields as the client sent them, with the entry's language if none is set."""
        fields: dict[str, Any] = dict(self.form.fields)
        if self.request.language is None and options.language is not None and not self.translate:
            fields["language"] = [options.language]
        return fields


class _Stream(EventStream[Event]):
    """OpenAI's events. If a pool's member on another server answers, its stream is passed on."""

    def render(self, item: Event) -> Iterator[bytes]:
        if isinstance(item, ForwardedData):
            yield item.data
        else:
            yield from super().render(item)


_SHAPES: Final = {JSON: Transcription | VerboseTranscription, TEXT: None, SRT: None, VTT: None, EVENTS: None}
OPERATIONS: Final[Operations] = {
    ("POST", f"/v1/audio/{name}"): Operation(
        summary=summary,
        content={kind.partition(";")[0]: shape for kind, shape in _SHAPES.items()},
        body=TranscriptionForm,
        body_type=FORM,
        example={"response_format": "verbose_json"},
        max_body_bytes=MAX_BODY_BYTES,
        errors=ERRORS_OF_WORK,
    )
    for name, summary in (
        ("transcriptions", "Transcribe a file."),
        ("translations", "Translate speech in a file to English text."),
    )
}
