"""One request's right to use an instance, and the recovery from engine failures that a request need not notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar, get_args

from localapi.backends.engine import Engine
from localapi.errors import RequestTimeout, WorkerEnded
from localapi.manifest import Entry
from localapi.runtime.instance import Instance
from localapi.runtime.queue import Queue, Ticket
from localapi.worker.protocol import ComesWhole, Event, Last, Preliminary, Request

log = logging.getLogger(__name__)
T = TypeVar("T")
_LAST: Final = get_args(Last)


@dataclass(frozen=True)
class Lease:
    """A request's right to use an engine, with the entry as of its arrival."""

    entry: Entry
    """Entry that answers."""
    asked: Entry
    """Requested entry: a pool, or the same entry."""
    engine: Engine
    instance: Instance
    queue: Queue
    ticket: Ticket

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the engine's events. Raise the engine's errors, RequestTimeout, and ModelBusy.

        If the worker ends before the response begins, the request goes to a new worker, once: a second end may be the
        request's fault. In a pool, it goes to another member instead.
        """
        for again in (self.asked is self.entry, False):
            begun = False
            try:
                async with aclosing(self._attempt(request)) as events:
                    async for item in events:
                        self.ticket.answer()
                        if isinstance(item, ComesWhole):
                            self.ticket.lift_limit_to_begin()
                            continue
                        if not begun and not isinstance(item, Preliminary):
                            begun = True
                            self.ticket.begin()
                        yield item
            except WorkerEnded as error:
                if begun or not again:
                    raise
                log.warning("%s: request %d starts again: %s", self.entry.id, request.id, error.message)
            else:
                return

    async def _attempt(self, request: Request) -> AsyncGenerator[Event, None]:
        engine = await self._in_time(self.instance.load())
        async with aclosing(engine.answer(request)) as events:
            while True:
                is_waited_for = self.ticket.started_at is None or self.queue.options.request_timeout_seconds is not None
                item = await (self._next(events) if is_waited_for else anext(events, None))
                if item is None:
                    return
                if isinstance(item, _LAST):
                    self.instance.backoff.reset()
                yield item

    async def _next(self, events: AsyncGenerator[Event, None]) -> Event | None:
        """Return the next event. Raise ModelBusy if the engine does not start within `queue_timeout_seconds`."""
        step = self._in_time(anext(events, None))
        if self.ticket.started_at is not None:
            return await step
        async with self.queue.wait(self.ticket):
            return await step

    async def _in_time(self, step: Awaitable[T]) -> T:
        """Return the result of a step. Raise RequestTimeout."""
        seconds = self.queue.options.request_timeout_seconds
        if seconds is None or self.ticket.sent_at is None:
            return await step
        deadline = asyncio.timeout_at(self.ticket.sent_at + seconds)
        try:
            async with deadline:
                return await step
        except TimeoutError:
            if not deadline.expired():
                raise
            raise RequestTimeout(
                f"{self.entry.id} did not finish within {seconds:g} s (request_timeout_seconds). Request less, or "
                f"raise the limit in the manifest."
            ) from None
