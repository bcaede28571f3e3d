"""Engine events to a reply: whole when all is known, or as server-sent events from the first one on.

Knows leases, status codes and the wire. What a chunk looks like is the endpoint's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from quart import Response

from localapi.errors import ApiError, GenerationFailed
from localapi.http import request_context
from localapi.http.merging import merged
from localapi.http.read_ahead import Ahead
from localapi.http.replies import DONE, EVENT_STREAM, comment, error_body, event, streamed_reply
from localapi.kinds import Kind
from localapi.kinds.chat import count_answer
from localapi.runtime.lease import Lease
from localapi.runtime.queue import Turn
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Delta, Event, Finished, Prefill, Relaxed, Request, ToolArguments, ToolStart, join

log = logging.getLogger(__name__)
Item = TypeVar("Item")

PRIME_SECONDS: Final = 2.0
"""How long a stream's status waits for the first event, so that early failures are real status codes."""
FORM_PRIME_SECONDS: Final = 10.0
"""The same if a reply header may have to tell what of the asked form is not kept."""
COMMENT_SECONDS: Final = 2.0
"""How often a stream that has nothing to send yet says what it waits for."""
MEASURABLE_TOKENS: Final = 20
MEASURABLE_SECONDS: Final = 0.2
"""A shorter answer says nothing of a model's speed."""
OBJECT_BYTES: Final = 200
"""What a small object takes in memory, about."""


def event_bytes(event: Event) -> int:
    """What an event takes in memory, about."""
    match event:
        case Delta():
            likely = sum(1 + len(token.top) for token in event.logprobs)
            return (1 + likely) * OBJECT_BYTES + len(event.text)
        case ToolArguments():
            return OBJECT_BYTES + len(event.text)
        case _:
            return OBJECT_BYTES


@dataclass
class Generation:
    """One request on its way through a model. `requests_for` makes the engine's requests when the lease is there."""

    registry: Registry
    model: str
    requests_for: Callable[[Lease], Sequence[Request]]
    kind: Kind

    def __post_init__(self) -> None:
        self.entry = self.registry.resolve(self.model, self.kind)
        request_context.current().held.enter_context(self.registry.answering())
        request_context.current().use(self.entry.id)
        self.turn = Turn()
        self._started = time.monotonic()
        self._first_text: float | None = None
        self.relaxed: list[str] = []
        """Where the request asks more of the answer's form than is kept, as far as that is known yet."""

    async def events(self) -> AsyncGenerator[Event, None]:
        """Lease the model and let it answer; several requests at once. Raises ApiError."""
        async with self.registry.lease(self.model, self.kind, self.turn) as lease:
            self.entry = lease.entry
            requests = self.requests_for(lease)
            log.debug(
                "%s: the worker calls it request %s",
                request_context.current().id,
                ", ".join(str(each.id) for each in requests),
            )
            answers = [lease.answer(request) for request in requests]
            async with aclosing(merged(answers) if len(answers) > 1 else answers[0]) as events:
                async for item in events:
                    if self._first_text is None and isinstance(item, Delta | ToolStart):
                        self._first_text = time.monotonic()
                    if isinstance(item, Relaxed):
                        self.relaxed = item.places
                    if isinstance(item, Finished):
                        self._log_done(item)
                    yield item

    async def stream(
        self, chunks_of: Callable[[Event], Iterator[dict[str, Any]]], *, prime_seconds: float = PRIME_SECONDS
    ) -> Response:
        """The events as a reply."""
        items = Ahead(self.events(), size=event_bytes, join=join)
        return await self.reply(items, chunks_of, end=DONE, prime_seconds=prime_seconds)

    async def reply(
        self,
        items: Ahead[Item],
        chunks_of: Callable[[Item], Iterator[dict[str, Any]]],
        *,
        end: bytes,
        prime_seconds: float = PRIME_SECONDS,
    ) -> Response:
        """The reply as soon as there is something to say, or after a moment. The items' source leases the model."""
        request_context.current().held.push_async_callback(items.close)
        await items.begun(prime_seconds)
        return streamed_reply(self._body(items, chunks_of, end), EVENT_STREAM)

    async def _body(
        self, items: Ahead[Item], chunks_of: Callable[[Item], Iterator[dict[str, Any]]], end: bytes
    ) -> AsyncGenerator[bytes, None]:
        """The stream's body. An error after the status has gone out is an event, and nothing follows it."""
        try:
            seconds = 0.0
            while not await items.begun(seconds):
                yield comment(self.registry.waiting_for(self.entry.id, self.turn))
                seconds = COMMENT_SECONDS
            while (item := await items.get()) is not None:
                if isinstance(item, Prefill):
                    yield comment(f"prompt {item.done} of {item.total} tokens")
                elif isinstance(item, Relaxed):  # for a stream whose headers went out before this was known
                    yield comment(f"not kept: {', '.join(item.places)}")
                else:
                    for chunk in chunks_of(item):
                        yield event(chunk)
        except ApiError as error:
            log.warning("%s: %s: %s", request_context.current().id, self.entry.id, error.logged)
            yield event(error_body(error))
            return
        except Exception:
            log.exception("%s: %s", request_context.current().id, self.entry.id)
            yield event(error_body(GenerationFailed("The server failed while it answered; its log says how.")))
            return
        if end:
            yield end

    def _log_done(self, finished: Finished) -> None:
        now = time.monotonic()
        first = self._first_text or now
        speed = _speed_shown(finished.completion_tokens, now - first)
        count_answer(
            request_context.current().counters, self.entry.id, finished,
            first_seconds=first - self._started, rest_seconds=now - first,
        )  # fmt: skip
        cached = f", {finished.cached_tokens} of them cached" if finished.cached_tokens else ""
        log.info(
            "%s: %d tokens%s, first after %.2f s, prompt of %d%s (%s)",
            self.entry.id, finished.completion_tokens, speed, first - self._started, finished.prompt_tokens, cached,
            request_context.current().id,
        )  # fmt: skip


def _speed_shown(tokens: int, seconds: float) -> str:
    """What the log says of an answer's speed: nothing if it was too short to measure."""
    if tokens < MEASURABLE_TOKENS or seconds < MEASURABLE_SECONDS:
        return ""
    return f", {tokens / seconds:.0f} tokens/s"
