"""Interface for wire formats: what a dialect declares, and the endpoint that serves it.

A dialect is one file: it parses a body into a `NeutralRequest`, and renders responses, errors and progress in its own
form. Everything in between is here and in `http.generation`, once for all dialects.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from quart import Blueprint, Response, request

from localapi.api.answers import Answer, collected
from localapi.api.images import with_images
from localapi.api.neutral_request import NeutralRequest
from localapi.api.recordings import with_recordings
from localapi.backends.image_options import ImageLimits, RecordingLimits, SeeingOptions
from localapi.backends.options import ChatOptions
from localapi.errors import ApiError
from localapi.http import body
from localapi.http.generation import (
    FORM_PRIME_SECONDS,
    PRIME_SECONDS,
    Generation,
    Renderer,
    begin,
    event_bytes,
    request_ids,
)
from localapi.http.read_ahead import Ahead
from localapi.http.replies import json_reply
from localapi.kinds.chat import CHAT, capabilities, chat_options, media
from localapi.manifest import Entry
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import (
    Capabilities,
    Chat,
    Complete,
    Event,
    Finished,
    Loaded,
    Tokenize,
    TokenizedText,
    join,
)


class Reply(Renderer[Event], Protocol):
    """Format of one reply on the wire, whole or as a stream."""

    model: str
    """Id of the requested entry, set by the server; a reload can change it until the model is leased."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> object:
        """Return the JSON of a reply that is not streamed."""


class Dialect(Protocol):
    """One wire format."""

    @property
    def path(self) -> str:
        """Path of the endpoint."""

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, Reply]:
        """Return the request in a body, and the renderer of its reply. Raise InvalidRequest."""

    def error_body(self, error: ApiError) -> object:
        """Return the JSON of an error reply."""


ErrorBody = Callable[[ApiError], object]


class ApiBlueprint(Blueprint):
    """Endpoints of one API. All errors there, including those about keys, have its form.

    So do errors at paths without an endpoint that its clients request: paths that begin with one of `paths`, and
    requests that `is_meant` recognizes.
    """

    def __init__(
        self,
        name: str,
        error_body: ErrorBody,
        *,
        paths: tuple[str, ...] = (),
        is_meant: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(name, __name__)
        self.error_body = error_body
        self._paths = paths
        self._is_meant = is_meant

    def claims(self) -> bool:
        """Return True if the current request is meant for this API, although none of its endpoints matches."""
        return request.path.startswith(self._paths) or self._is_meant()


class DialectBlueprint(ApiBlueprint):
    """Endpoints of dialects."""

    def __init__(
        self,
        registry: Registry,
        dialect: Dialect,
        *others: Dialect,
        paths: tuple[str, ...] = (),
        is_meant: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(type(dialect).__name__, dialect.error_body, paths=paths, is_meant=is_meant)
        for each in (dialect, *others):
            self.add_url_rule(each.path, each.path, _endpoint(registry, each), methods=["POST"])


def error_body_of(blueprints: Mapping[str, object], otherwise: ErrorBody) -> ErrorBody:
    """Return the error form of the current request's API: that of its endpoint, or of the API that claims it."""
    own = blueprints.get(request.blueprint or "")
    if isinstance(own, ApiBlueprint):
        return own.error_body
    for each in blueprints.values():
        if isinstance(each, ApiBlueprint) and each.claims():
            return each.error_body
    return otherwise


def _endpoint(registry: Registry, dialect: Dialect) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        asked, reply = dialect.parse(await body.read_object())
        asked.check()
        with asked.in_words_of_client():
            return await Exchange(begin(registry, asked.model, CHAT), asked, reply).response()

    return answer


@dataclass
class Exchange:
    """Response to one request."""

    generation: Generation
    request: NeutralRequest
    reply: Reply
    overruled: list[str] = field(default_factory=list)
    """Parameters that the entry's locks override."""
    unsupported: list[str] = field(default_factory=list)
    """Parameters and features that the entry's backend does not support."""
    forwarded: bool = False
    """True if the body is forwarded to another server unchanged, including fields without effect here."""
    _seen: dict[_Limits, NeutralRequest] = field(default_factory=dict)
    """Request with its images, by the limits with which they were fetched."""

    async def response(self) -> Response:
        """Return the reply, whole or as a stream. Raise ApiError before anything is sent."""
        self.expect()
        # Before there is a lease, because an invalid image should not have to wait.
        expected = self.generation.expected
        await self._get_media(expected, self.generation.registry.instance(expected.id).loaded)
        asks = self.request.asks
        if not asks:
            await self._load()
            response = json_reply(self.reply.whole([], Finished(0, 0, 0)))
        elif self.request.stream:
            prime_seconds = FORM_PRIME_SECONDS if self.request.may_be_relaxed else PRIME_SECONDS
            items = Ahead(self.events(), size=event_bytes, join=join, pausable=False)
            response = await self.generation.stream(items, self.reply, prime_seconds=prime_seconds)
        else:
            count = self.request.count
            answers, usage = await self.generation.whole(
                self._requests, lambda events: collected(events, count), about=asks, prepare=self._prepare
            )
            response = json_reply(self.reply.whole(answers, usage))
        return self.named(response)

    def expect(self) -> None:
        """Refuse what the current entry cannot do, before there is a lease: a stream may send its headers then.

        Raise InvalidRequest.
        """
        expected = self.generation.expected
        self._requests_for(expected, self.generation.registry.instance(expected.id).loaded)
        self.reply.model = self.generation.entry.id

    def events(self) -> AsyncGenerator[Event, None]:
        """Return the engine's events. They raise ApiError."""
        return self.generation.events(self._requests, about=self.request.asks, prepare=self._prepare)

    async def prompt_tokens(self) -> list[int]:
        """Return the tokens of the conversation's prompt, without generating. Raise ApiError."""

        def question(lease: Lease) -> list[Tokenize]:
            [chat] = self._requests(lease)
            assert isinstance(chat, Chat)  # noqa: S101  # a text has no prompt of its own
            return [Tokenize(next(request_ids), chat=chat)]

        async with aclosing(self.generation.events(question, prepare=self._prepare)) as events:
            reply = await anext(events)
        return reply.tokens if isinstance(reply, TokenizedText) else []

    def named(self, response: Response) -> Response:
        """Name in reply headers the parameters that have no effect, or another one than requested."""
        for header, names, what, level in (
            (body.RELAXED_HEADER, self.generation.relaxed, "not enforced", logging.INFO),
            (body.LOCKED_HEADER, self.overruled, "overruled by the manifest", logging.DEBUG),
            (body.UNSUPPORTED_HEADER, self.unsupported, "not supported by the backend", logging.WARNING),
        ):
            body.name_in_reply(response, header, names, what, level)
        self.generation.name_member(response)
        return body.name_ignored([] if self.forwarded else self.request.ignored, response)

    async def _load(self) -> None:
        """Load the model, or unload it if it should not be kept loaded."""
        if self.request.keep_alive == 0:
            await self.generation.registry.instance(self.generation.expected.id).release()
            return

        async def load(lease: Lease) -> AsyncGenerator[Entry, None]:
            self._requests(lease)
            yield lease.entry

        async with aclosing(self.generation.through(load)) as loaded:
            await anext(loaded)

    async def _prepare(self, lease: Lease) -> None:
        await self._get_media(lease.entry, lease.engine.loaded)

    async def _get_media(self, entry: Entry, loaded: Loaded | None) -> None:
        """Get images and recordings as this entry's settings allow; members of a pool may have other settings.

        Raise InvalidRequest.
        """
        options = chat_options(entry.options)
        limits = _limits(options, capabilities(options, loaded))
        if limits is not None and limits not in self._seen:
            request = self.request
            if limits.images is not None:
                request = await with_images(request, limits.images, forwards=options.forwards)
            if limits.recordings is not None:
                request = with_recordings(request, limits.recordings)
            self._seen[limits] = request

    def _requests(self, lease: Lease) -> list[Chat | Complete]:
        self.reply.model = lease.asked.id
        if self.request.keep_alive is not None:
            lease.instance.keep_for(self.request.keep_alive)
        return self._requests_for(lease.entry, lease.engine.loaded)

    def _requests_for(self, entry: Entry, loaded: Loaded | None) -> list[Chat | Complete]:
        options = chat_options(entry.options)
        self.forwarded = options.forwards and self.request.is_original
        can = capabilities(options, loaded)
        limits = _limits(options, can)
        request = self.request if limits is None else self._seen.get(limits, self.request)
        suited, useless = request.suited_to(can)
        honoured, unhonoured = suited.honoured_by(options, can)
        self.unsupported = [*useless, *unhonoured]
        requests, self.overruled = honoured.for_entry(options)
        if (self.request.keep_alive or 0) > entry.max_keep_alive:
            self.overruled = sorted([*self.overruled, "keep_alive"])
        return requests


@dataclass(frozen=True)
class _Limits:
    """Limits for images and recordings in a request; None for media that the model does not accept."""

    images: ImageLimits | None
    recordings: RecordingLimits | None


def _limits(options: ChatOptions, can: Capabilities) -> _Limits | None:
    """Return the limits for a model; None if it accepts neither, or if this server does not fetch media for it."""
    reads = media(options, can)
    if not reads or not isinstance(options, SeeingOptions):
        return None
    return _Limits(
        options.image_limits if "image" in reads else None, options.recording_limits if "audio" in reads else None
    )
