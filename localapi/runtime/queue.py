"""The queue of one entry: who is answered, who waits and who is refused. First come, first served.

`Occupancy` is the policy, as pure functions; `Queue` carries it out. Knows requests by their tickets and nothing else
of them, and nothing of models.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Final

from localapi.backends.options import EntryOptions
from localapi.errors import ModelBusy

if TYPE_CHECKING:
    from localapi.runtime.instance import Instance

RECENT: Final = 20
"""Requests whose durations predict those of the next ones."""
UNKNOWN_SECONDS: Final = 2.0
"""Expected duration of a request before one has ended."""
LONGEST_RETRY_SECONDS: Final = 600.0


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """Load of an entry, in requests."""

    queued: int = 0
    admitted: int = 0
    """Out of the queue, and waiting for the model to be loaded."""
    sent: int = 0
    """Given to the engine."""
    queued_in_engine: int = 0
    """Number of sent requests that are queued inside the engine."""
    max_concurrent: int | None = None
    max_batch: int | None = None
    """Number of requests that the engine answers concurrently; None: it never queues."""
    max_waiting: int | None = None

    @property
    def waiting(self) -> int:
        """Number that no engine works on."""
        return self.queued + self.admitted + min(self.queued_in_engine, self.sent)

    @property
    def slots(self) -> int | None:
        """Number that can be worked on concurrently; None: any number."""
        bounds = [bound for bound in (self.max_concurrent, self.max_batch) if bound is not None]
        return min(bounds, default=None)

    @property
    def free_slots(self) -> int | None:
        """Number that can be worked on in addition; None: any number."""
        if self.queued_in_engine:
            return 0  # it may be full for another reason than their number
        return None if self.slots is None else max(0, self.slots - self.sent)

    @property
    def is_full(self) -> bool:
        """True if one more request has to be refused."""
        if self.max_waiting is None:
            return False
        # Those that will have a slot as soon as the model is loaded do not count.
        soon = 1 if self.free_slots is None else self.free_slots
        return self.waiting >= self.max_waiting + soon

    @property
    def admissible(self) -> int:
        """Number that may leave the queue."""
        if self.max_concurrent is None:
            return self.queued
        return min(self.queued, max(0, self.max_concurrent - self.admitted - self.sent))

    def position(self, index: int) -> int:
        """Return the position of the request at an index of the queue, from 1."""
        return self.waiting - self.queued + index + 1

    def position_in_engine(self, index: int, unanswered: int) -> int | None:
        """Return the position, from 1, of the request at an index of those sent and unanswered, in order.

        None if the engine works on it. It does on the first ones, of which nothing has come yet.
        """
        first = max(0, unanswered - self.queued_in_engine)
        return index - first + 1 if index >= first else None

    def retry_seconds(self, each_seconds: float) -> float:
        """Return when to try again, if each request takes so long."""
        slots = self.slots or max(1, self.admitted + self.sent)
        return min(LONGEST_RETRY_SECONDS, max(1.0, each_seconds * (self.waiting + 1) / slots))


class Ticket:
    """One request on its way: queued, admitted, sent to the engine, started, answered.

    Times are those of the monotonic clock, which is the loop's.
    """

    def __init__(self) -> None:
        self.arrived_at = time.monotonic()
        self.admitted_at: float | None = None
        self.sent_at: float | None = None
        self.started_at: float | None = None
        """Time at which the engine began with it, or had a slot for it."""
        self.answered = False
        """True if anything has come of it, if only progress."""
        self.begun = False
        """True if a part of the answer has come."""
        self.attempt: tuple[str, Ticket] | None = None
        """The id of the member of a pool that is asked, and the ticket there."""
        self._admitted = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()
        """Its waits that are in progress: one, or one for each answer that was asked for."""
        self._waits_to_begin: set[asyncio.Timeout] = set()
        self._is_on_its_way = False

    async def admitted(self) -> None:
        """Wait until it leaves the queue."""
        await self._admitted.wait()

    def enqueue(self) -> None:
        """Put it into a queue, for the first time or again."""
        self.admitted_at = self.sent_at = self.attempt = None
        self._admitted.clear()

    def admit(self) -> None:
        """Take it out of the queue."""
        self.admitted_at = time.monotonic()
        self._admitted.set()

    def start(self) -> None:
        """Take note that the engine has begun with it: it does not wait any more."""
        if self.started_at is None:
            self.started_at = time.monotonic()
            self.limit_wait(None)

    def answer(self) -> None:
        """Take note that something has come of it."""
        self.answered = True
        self.start()

    def begin(self) -> None:
        """Take note that a part of the answer has come."""
        if not self.begun:
            self.begun = True
            self.lift_limit_to_begin()

    def lift_limit_to_begin(self) -> None:
        """Take note that the answer is on its way, even if nothing can be seen of it before it is complete."""
        self._is_on_its_way = True
        for wait in self._waits_to_begin:
            if not wait.expired():
                wait.reschedule(None)

    @asynccontextmanager
    async def wait_to_begin(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        """Let it wait inside the block for the first part of its answer. Raise TimeoutError if that takes too long."""
        when = None if seconds is None or self._is_on_its_way else self.arrived_at + seconds
        async with asyncio.timeout_at(when) as wait:
            self._waits_to_begin.add(wait)
            try:
                yield wait
            finally:
                self._waits_to_begin.discard(wait)

    def limit_wait(self, seconds: float | None) -> None:
        """Limit how long it may wait, counted from its arrival; also while it does."""
        when = None if seconds is None or self.started_at is not None else self.arrived_at + seconds
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(when)

    @asynccontextmanager
    async def wait(self, seconds: float | None) -> AsyncIterator[None]:
        """Let it wait inside the block. Raise TimeoutError if that takes too long."""
        async with asyncio.timeout(None) as wait:
            self._waits.add(wait)
            try:
                self.limit_wait(seconds)
                yield
            finally:
                self._waits.discard(wait)


class Queue:
    """The requests of one entry."""

    def __init__(self, name: str, options: EntryOptions, engine: Instance) -> None:
        self.name = name
        self.options = options
        self.engine = engine
        self._queued: list[Ticket] = []
        self._inside: set[Ticket] = set()
        """Admitted tickets, including those sent to the engine."""
        self._durations: deque[float] = deque(maxlen=RECENT)
        self._closed = False

    @property
    def occupancy(self) -> Occupancy:
        """Load of the entry at this moment."""
        sent = sum(ticket.sent_at is not None for ticket in self._inside)
        return Occupancy(
            queued=len(self._queued),
            admitted=len(self._inside) - sent,
            sent=sent,
            queued_in_engine=self.engine.queued,
            max_concurrent=self.options.max_concurrent,
            max_batch=self.engine.max_batch,
            max_waiting=self.options.max_waiting,
        )

    def position(self, ticket: Ticket) -> int | None:
        """Return the position of a request, from 1, here or inside the engine; None if it is not queued."""
        if ticket in self._queued:
            return self.occupancy.position(self._queued.index(ticket))
        unanswered = [each for each in self._inside if each.sent_at is not None and not each.answered]
        unanswered.sort(key=lambda each: each.sent_at or 0.0)
        if ticket not in unanswered:
            return None
        return self.occupancy.position_in_engine(unanswered.index(ticket), len(unanswered))

    def follow(self, options: EntryOptions) -> None:
        """Apply settings in place. Those who wait keep their places, but wait no longer than is now allowed."""
        self.options = options
        for ticket in (*self._queued, *self._inside):
            ticket.limit_wait(options.queue_timeout_seconds)
        self._admit()

    def replace_engine(self, engine: Instance) -> None:
        """Take another engine, which works on nothing yet."""
        self.engine = engine
        self._inside = {ticket for ticket in self._inside if ticket.sent_at is None}
        self._durations.clear()
        self._admit()

    def close(self) -> None:
        """Admit all, to find that the entry has gone."""
        self._closed = True
        self._admit()

    @contextmanager
    def enter(self, ticket: Ticket) -> Iterator[None]:
        """Hold a request's place, in the queue and then inside. Raise ModelBusy if there is none."""
        occupancy = self.occupancy
        if occupancy.is_full:
            raise self._busy(f"The queue of {self.name} is full: {occupancy.waiting} waiting (max_waiting).")
        ticket.enqueue()
        self._queued.append(ticket)
        self._admit()
        try:
            yield
        finally:
            if ticket in self._queued:
                self._queued.remove(ticket)
            self._inside.discard(ticket)
            if ticket.started_at is not None:
                self._durations.append(time.monotonic() - ticket.started_at)
            self._admit()

    @asynccontextmanager
    async def wait(self, ticket: Ticket) -> AsyncIterator[None]:
        """Let a request wait inside the block. Raise ModelBusy if that takes too long."""
        try:
            async with ticket.wait(self.options.queue_timeout_seconds):
                yield
        except TimeoutError:
            waited = time.monotonic() - ticket.arrived_at
            raise self._busy(
                f"{self.name} could not begin with this request within {waited:.1f} s (queue_timeout_seconds)."
            ) from None

    def send(self, ticket: Ticket) -> None:
        """Take note that the engine is asked. It starts at once if it has a free slot."""
        if self.occupancy.free_slots != 0:
            ticket.start()
        ticket.sent_at = time.monotonic()

    def _admit(self) -> None:
        count = len(self._queued) if self._closed else self.occupancy.admissible
        for ticket in self._queued[:count]:
            self._inside.add(ticket)
            ticket.admit()
        del self._queued[:count]

    def _busy(self, message: str) -> ModelBusy:
        each_seconds = fmean(self._durations) if self._durations else UNKNOWN_SECONDS
        seconds = self.occupancy.retry_seconds(each_seconds)
        return ModelBusy(f"{message} Try again in {seconds:.0f} s.", retry_after_seconds=seconds)
