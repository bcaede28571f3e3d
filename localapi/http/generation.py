"""Answer one request with a model: lease, stream, cancel and count.

This module knows leases, status codes and streams, but no wire format; a renderer encodes the events.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar, get_args

from quart import Response

from localapi.errors import ApiError, GenerationFailed
from localapi.http import request_context
from localapi.http.body import in_header
from localapi.http.read_ahead import OBJECT_BYTES, Ahead
from localapi.http.replies import streamed_reply
from localapi.http.tracing import AnswerTrace
from localapi.kinds import Kind
from localapi.manifest import Entry
from localapi.runtime.lease import Lease
from localapi.runtime.progress import Progress, State
from localapi.runtime.queue import Ticket
from localapi.runtime.registry import Registry
from localapi.runtime.routing import Use, answers
from localapi.worker.protocol import (
    Addition,
    Answering,
    Awaiting,
    Delta,
    Ended,
    Event,
    Finished,
    ForwardedData,
    Heard,
    Listening,
    Prefill,
    Relaxed,
    Request,
    ToolArguments,
    ToolStart,
)

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Prepare = Callable[[Lease], Awaitable[None]]
"""Function that gets what a request needs besides the model. Raises ApiError."""
Shown_contra = TypeVar("Shown_contra", contravariant=True)

PRIME_SECONDS: Final = 2.0
"""Maximum time that the status of a stream waits for the first event, so that early failures get real status codes."""
FORM_PRIME_SECONDS: Final = 10.0
"""The same, if a reply header may have to name requested constraints that are not enforced."""
MEASURABLE_TOKENS: Final = 20
MEASURABLE_SECONDS: Final = 0.2
"""Shortest response whose speed is logged."""
SERVED_BY_HEADER: Final = "x-served-by"
"""Header that names the member of a pool that answers."""
PROGRESS_SECONDS: Final = 2.0
"""Interval of progress reports in a stream that has nothing else to send yet."""

SENT_AT_ONCE_BYTES: Final = 64 * 1024
_PROGRESS: Final = (Prefill, Awaiting, Listening)
_GROWTH: Final = (Delta, ToolArguments)
_FIRST: Final = (Delta, ToolStart)

request_ids = itertools.count(1)
"""Ids of requests to engines, unique in this process."""


class Renderer(Protocol[Shown_contra]):
    """Renderer of a stream in one wire format."""

    @property
    def content_type(self) -> str:
        """Content-Type of the stream."""

    def render(self, item: Shown_contra) -> Iterable[bytes]:
        """Return the bytes for one item of the response."""

    def progress(self, progress: Progress) -> bytes:
        """Return the bytes that report progress; empty if the format has no place for it."""

    def error(self, error: ApiError) -> bytes:
        """Return the bytes of an error after the status has been sent. Nothing follows it, not even `end`."""

    def end(self) -> bytes:
        """Return the bytes that mark a stream as complete."""


def event_bytes(event: Event) -> int:
    """Return approximately how many bytes of memory an event takes."""
    size = OBJECT_BYTES
    if isinstance(event, _GROWTH):
        size += len(event.text)
        if isinstance(event, Delta) and event.logprobs:
            size += OBJECT_BYTES * sum(1 + len(token.top) for token in event.logprobs)
    elif isinstance(event, ForwardedData):
        size += len(event.data)
    elif isinstance(event, Heard):
        size += sum(OBJECT_BYTES * (1 + len(said.words)) + len(said.text) for said in event.segments)
    return size


def begin(registry: Registry, model: str, kind: Kind) -> Generation:
    """Begin to answer the current HTTP request with a model. Raise ModelNotFound and WrongEndpoint."""
    entry = registry.resolve(model, kind)
    scope = request_context.current()
    scope.held.enter_context(registry.answering())
    scope.use(entry.model_id)
    return Generation(registry, model, kind, entry)


@dataclass
class Generation:
    """Request in progress. `entry` is the requested model's; if it is a pool, a member may answer."""

    registry: Registry
    model: str
    kind: Kind
    entry: Entry
    ticket: Ticket = field(default_factory=Ticket)
    relaxed: list[str] = field(default_factory=list)
    """Constraints on the response's form that are not enforced, as far as known yet."""
    member: str | None = None
    """Id of the pool's member that answers, once that is certain."""

    def __post_init__(self) -> None:
        self._started = self._loaded = time.monotonic()
        self._first_text: float | None = None
        trace = request_context.current().trace
        self._trace: AnswerTrace | None = None
        if trace is not None:
            self._trace = AnswerTrace(trace, self.ticket, self.kind.operation or self.kind.name, self.entry.id)

    @property
    def expected(self) -> Entry:
        """Entry that would answer now: a member of a pool, or the entry itself."""
        return self.registry.expected(self.entry) if self.entry.model_id in self.registry.entries else self.entry

    async def through(self, use: Use[Item], *, about: Sequence[Request] = ()) -> AsyncGenerator[Item, None]:
        """Yield what `use` yields for the lease that the request gets, or, in a pool, for the next one.

        Raise ApiError.
        """

        async def noting(lease: Lease) -> AsyncGenerator[Item, None]:
            self.entry = lease.asked
            if self._trace is not None:
                self._trace.lease(lease)
            async with aclosing(use(lease)) as items:
                async for item in items:
                    if lease.ticket.begun and lease.asked is not lease.entry:
                        self.member = lease.entry.id
                    yield item

        try:
            source = answers(self.registry, self.model, self.kind, self.ticket, noting, about=about)
            async with aclosing(source) as items:
                async for item in items:
                    yield item
        finally:
            if self._trace is not None:
                self._trace.close()

    def events(
        self,
        requests_for: Callable[[Lease], Sequence[Request]],
        *,
        about: Sequence[Request] = (),
        prepare: Prepare | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Return the events of one or several requests to a model that is leased for them. They raise ApiError.

        Several requests look like one: their choices are numbered consecutively, and one `Finished` sums them up.
        `about` is what is known of the request before the lease. `prepare` is called before `requests_for`.
        """
        return self.through(partial(self._events, requests_for=requests_for, prepare=prepare), about=about)

    async def whole(
        self,
        requests_for: Callable[[Lease], Sequence[Request]],
        collect: Callable[[AsyncGenerator[Event, None]], Awaitable[Item]],
        *,
        about: Sequence[Request] = (),
        prepare: Prepare | None = None,
    ) -> Item:
        """Return what `collect` makes of all events.

        Because nothing is sent before, a pool may start again until then.
        """

        async def use(lease: Lease) -> AsyncGenerator[Item, None]:
            yield await collect(self._events(lease, requests_for, prepare))

        async with aclosing(self.through(use, about=about)) as collected:
            return await anext(collected)

    async def _events(
        self, lease: Lease, requests_for: Callable[[Lease], Sequence[Request]], prepare: Prepare | None
    ) -> AsyncGenerator[Event, None]:
        self._loaded = time.monotonic()
        if prepare is not None:
            await prepare(lease)
        requests = requests_for(lease)
        numbers = ", ".join(str(each.id) for each in requests)
        log.debug("%s: request %s in the worker", request_context.current().id, numbers)
        if self._trace is not None:
            self._trace.ask(requests)
        self._first_text, self.relaxed = None, []
        each = [lease.answer(request) for request in requests]
        async with aclosing(as_one(requests, each) if len(each) > 1 else each[0]) as events:
            async for item in events:
                if self._first_text is None and isinstance(item, _FIRST):
                    self._first_text = time.monotonic()
                if self._trace is not None:
                    self._trace.hear(item)
                if isinstance(item, Relaxed):
                    self.relaxed = item.places
                if isinstance(item, Awaiting) and lease.entry.peer is not None:
                    item.at = lease.entry.peer
                if isinstance(item, Finished):
                    self._count(item, lease)
                yield item

    def name_member(self, reply: Response) -> Response:
        """Name the member of a pool that answers in a header, if it is certain and may be known."""
        member = self.registry.entries.get(self.member or "")
        if member is not None and self.registry.may_use(member):
            reply.headers[SERVED_BY_HEADER] = in_header([member.id])
        return reply

    async def stream(
        self, items: Ahead[Item], renderer: Renderer[Item], *, prime_seconds: float = PRIME_SECONDS
    ) -> Response:
        """Return the reply as soon as there is something to send, or after a moment.

        Raise errors that occur before that.
        """
        request_context.current().held.push_async_callback(items.close)
        await items.begun(prime_seconds)
        return streamed_reply(self._body(items, renderer), renderer.content_type)

    async def _body(self, items: Ahead[Item], renderer: Renderer[Item]) -> AsyncGenerator[bytes, None]:
        unsent = bytearray()  # items that are ready together are sent together
        try:
            seconds = 0.0
            while not await items.begun(seconds):
                yield renderer.progress(self.registry.progress(self.entry.id, self.ticket))
                seconds = PROGRESS_SECONDS
            while (item := await items.get()) is not None:
                if isinstance(item, _PROGRESS):
                    unsent += renderer.progress(self._progress(item))
                else:
                    for part in renderer.render(item):
                        unsent += part
                if unsent and (items.are_awaited or len(unsent) >= SENT_AT_ONCE_BYTES):
                    yield bytes(unsent)
                    unsent.clear()
            unsent += renderer.end()
        except ApiError as error:
            log.warning("%s: %s: %s", request_context.current().id, self.entry.id, error.logged)
            request_context.current().error = error.reply_code or error.type
            unsent += renderer.error(error)
        except Exception:
            log.exception("%s: %s", request_context.current().id, self.entry.id)
            unsent += renderer.error(GenerationFailed("The server failed while answering; see its log."))
        if unsent:
            yield bytes(unsent)

    def _progress(self, item: Prefill | Awaiting | Listening) -> Progress:
        """Return the progress of the request, as reported by its model or by the server that runs it."""
        if isinstance(item, Prefill):
            return Progress("prompt", self.entry.id, done=item.done, total=item.total)
        if isinstance(item, Listening):
            return Progress("sound", self.entry.id, done=int(item.done_seconds), total=int(item.total_seconds))
        known: dict[str, State] = {name: name for name in get_args(State)}
        state = known.get(item.state, "waiting")
        return Progress(
            state, self.entry.id, at=item.at, position=item.position, step=item.step, done=item.done, total=item.total
        )

    def _count(self, finished: Finished, lease: Lease) -> None:
        now, scope, tokens = time.monotonic(), request_context.current(), finished.completion_tokens
        first = self._first_text or now
        finished.load_seconds = self._loaded - self._started
        finished.prompt_seconds = first - self._loaded
        finished.answer_seconds = now - first
        first_seconds, rest_seconds = first - self._started, now - first
        self.kind.count(scope.counters, self.entry.model_id, finished, first_seconds, rest_seconds)
        if not finished.counted:
            log.info("%s: answered, first after %.2f s (%s)", self.entry.id, first_seconds, scope.id)
            return
        speed = cached = ""
        if tokens >= MEASURABLE_TOKENS and rest_seconds >= MEASURABLE_SECONDS:
            speed = f", {tokens / rest_seconds:.0f} tokens/s"
        if finished.cached_tokens:
            cached = f", {finished.cached_tokens} of them cached"
        name = self.entry.id if lease.entry is lease.asked else f"{self.entry.id} ({lease.entry.id})"
        log.info(
            "%s: %d tokens%s, first after %.2f s, prompt of %d%s (%s)",
            name, tokens, speed, first_seconds, finished.prompt_tokens, cached, scope.id,
        )  # fmt: skip


Arrived = asyncio.Queue[Event | Exception | None]
"""Events from several sources. None: a source has ended."""


async def as_one(
    requests: Sequence[Request], answers: Sequence[AsyncGenerator[Event, None]]
) -> AsyncGenerator[Event, None]:
    """Yield the events of several responses as those of one."""
    first_choice: dict[int, int] = {}
    choices = 0
    for request in requests:
        first_choice[request.id] = choices
        choices += request.n if isinstance(request, Answering) else 1
    left = len(requests)
    total = Finished(requests[0].id, 0, 0)
    async with aclosing(merged(answers)) as events:
        async for item in events:
            if isinstance(item, Delta | ToolStart | ToolArguments | Ended | Addition):
                item.choice += first_choice[item.id]
                yield item
            elif isinstance(item, Finished):
                left -= 1
                total.prompt_tokens += item.prompt_tokens
                total.completion_tokens += item.completion_tokens
                total.cached_tokens += item.cached_tokens
                total.reasoning_tokens += item.reasoning_tokens
                total.counted = total.counted and item.counted
                if left == 0:
                    yield total
            else:
                yield item


async def merged(sources: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
    """Yield the events of all sources as they arrive.

    The first source that raises ends the others, and so does closing this.
    """
    arrived: Arrived = asyncio.Queue(1)  # a source waits until its event is requested
    tasks = [asyncio.create_task(_pass_on(source, arrived)) for source in sources]
    try:
        left = len(tasks)
        while left:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(source: AsyncGenerator[Event, None], arrived: Arrived) -> None:
    try:
        async with aclosing(source) as events:
            async for event in events:
                await arrived.put(event)
    except Exception as error:  # raised where the events are consumed
        await arrived.put(error)
    else:
        await arrived.put(None)
