"""The seam for wire formats: what a dialect declares, and the endpoint that serves it.

A dialect is one file: it parses a body into a `NeutralRequest`, and shows answers, errors and progress in its own form.
Everything between both is here and in `http.generation`, once for all dialects.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from quart import Blueprint, Response

from localapi.api.answers import Answer, collected
from localapi.api.neutral_request import NeutralRequest
from localapi.errors import ApiError
from localapi.http import body
from localapi.http.generation import FORM_PRIME_SECONDS, PRIME_SECONDS, Generation, Renderer, begin, event_bytes
from localapi.http.read_ahead import Ahead
from localapi.http.replies import json_reply
from localapi.kinds.chat import CHAT, chat_options
from localapi.manifest import Entry
from localapi.runtime.lease import Lease
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Chat, Complete, Event, Finished, join


class Reply(Renderer[Event], Protocol):
    """How one reply looks on the wire, whole or as a stream."""

    model: str
    """Id of the entry that was asked. The server sets it; a reload can change it until the model is leased."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> object:
        """Return the JSON of a reply that is not streamed."""


class Dialect(Protocol):
    """One wire format."""

    @property
    def path(self) -> str:
        """Return the path of the endpoint."""

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, Reply]:
        """Return the request that a body makes, and what shows its reply. Raise InvalidRequest."""

    def error_body(self, error: ApiError) -> object:
        """Return the JSON of a reply with an error's status."""


class DialectBlueprint(Blueprint):
    """The endpoints of one API. Whatever goes wrong there, also with the key, has the form of its dialects."""

    def __init__(self, registry: Registry, dialect: Dialect, *others: Dialect) -> None:
        super().__init__(type(dialect).__name__, __name__)
        self.error_body = dialect.error_body
        for each in (dialect, *others):
            self.add_url_rule(each.path, each.path, _endpoint(registry, each), methods=["POST"])


def _endpoint(registry: Registry, dialect: Dialect) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        request, reply = dialect.parse(await body.read_object())
        request.check()
        return await Exchange(begin(registry, request.model, CHAT), request, reply).response()

    return answer


@dataclass
class Exchange:
    """The answer to one request."""

    generation: Generation
    request: NeutralRequest
    reply: Reply
    overruled: list[str] = field(default_factory=list)
    """Parameters that the entry's locks set otherwise."""
    unsupported: list[str] = field(default_factory=list)
    """What the entry's backend does not honour."""
    forwarded: bool = False
    """True if the body goes to another server as it is, with what has no effect here."""

    async def response(self) -> Response:
        """Return the reply, whole or as a stream. Raise ApiError before anything is sent."""
        # The entry of now, for a stream whose headers are sent before there is a lease.
        self._requests_for(self.generation.expected)
        self.reply.model = self.generation.entry.id
        asks = self.request.asks
        if self.request.stream:
            events = self.generation.events(self._requests, about=asks)
            prime_seconds = FORM_PRIME_SECONDS if self.request.may_be_relaxed else PRIME_SECONDS
            items = Ahead(events, size=event_bytes, join=join, pausable=False)
            response = await self.generation.stream(items, self.reply, prime_seconds=prime_seconds)
        else:
            count = self.request.count
            answers, usage = await self.generation.whole(
                self._requests, lambda events: collected(events, count), about=asks
            )
            response = json_reply(self.reply.whole(answers, usage))
        for header, names, what, level in (
            (body.RELAXED_HEADER, self.generation.relaxed, "not enforced", logging.INFO),
            (body.LOCKED_HEADER, self.overruled, "overruled by the manifest", logging.DEBUG),
            (body.UNSUPPORTED_HEADER, self.unsupported, "not supported by the backend", logging.WARNING),
        ):
            body.name_in_reply(response, header, names, what, level)
        self.generation.name_member(response)
        return body.name_ignored([] if self.forwarded else self.request.ignored, response)

    def _requests(self, lease: Lease) -> list[Chat | Complete]:
        self.reply.model = lease.asked.id
        return self._requests_for(lease.entry)

    def _requests_for(self, entry: Entry) -> list[Chat | Complete]:
        options = chat_options(entry.options)
        self.forwarded = options.forwards and self.request.is_original
        honoured, self.unsupported = self.request.honoured_by(options)
        requests, self.overruled = honoured.for_entry(options)
        return requests
