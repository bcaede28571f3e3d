"""Queue of one entry: who is answered, who waits and who is refused. First come, first served.

`Occupancy` is the policy, as pure functions; `Queue` carries it out. It knows requests only by their tickets, and knows
nothing of models.
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
"""Number of recent requests whose durations predict those of the next ones."""
UNKNOWN_SECONDS: Final = 2.0
"""Expected duration of a request before one has ended."""
LONGEST_RETRY_SECONDS: Final = 600.0


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """Load of an entry, in requests."""

    queued: int = 0
    admitted: int = 0
    """Number that have left the queue and wait for the model to load."""
    sent: int = 0
    """Number sent to the engine."""
    queued_in_engine: int = 0
    """Number of sent requests that are queued in the engine."""
    max_concurrent: int | None = None
    max_batch: int | None = None
    """Number of requests that the engine answers concurrently; None if it never queues."""
    max_waiting: int | None = None

    @property
    def waiting(self) -> int:
        """Number that no engine works on."""
        return self.queued + self.admitted + min(self.queued_in_engine, self.sent)

    @property
    def slots(self) -> int | None:
        """Number that can be worked on concurrently; None for any number."""
        bounds = [bound for bound in (self.max_concurrent, self.max_batch) if bound is not None]
        return min(bounds, default=None)

    @property
    def free_slots(self) -> int | None:
        """Number that can be worked on in addition; None for any number."""
        if self.queued_in_engine:
            return 0  # it may be full for a reason other than their number
        return None if self.slots is None else max(0, self.slots - self.sent)

    @property
    def is_full(self) -> bool:
        """True if another request must be refused."""
        if self.max_waiting is None:
            return False
        # Those that will get a slot once the model is loaded do not count.
        soon = 1 if self.free_slots is None else self.free_slots
        return self.waiting >= self.max_waiting + soon

    @property
    def admissible(self) -> int:
        """Number that may leave the queue."""
        if self.max_concurrent is None:
            return self.queued
        return min(self.queued, max(0, self.max_concurrent - self.admitted - self.sent))

    def position(self, index: int) -> int:
        """Return the position, from 1, of the request at an index of the queue."""
        return self.waiting - self.queued + index + 1

    def position_in_engine(self, index: int, unanswered: int) -> int | None:
        """Return the position, from 1, of the request at an index of those sent and unanswered, in order.

        None if the engine works on it. It works on the first ones, even if nothing has arrived from them yet.
        """
        first = max(0, unanswered - self.queued_in_engine)
        return index - first + 1 if index >= first else None

    def retry_seconds(self, each_seconds: float) -> float:
        """Return the seconds after which to retry, if each request takes this long."""
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
        """Time at which the engine started it, or had a slot for it."""
        self.answered = False
        """True if any event has arrived for it, even if only progress."""
        self.begun = False
        """True if a part of the response has arrived."""
        self.attempt: tuple[str, Ticket] | None = None
        """Id of the pool's member that is asked, and the ticket there."""
        self._admitted = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()
        """Its waits in progress: one, or one for each requested choice."""
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
        """Record that the engine has started it, so it no longer waits."""
        if self.started_at is None:
            self.started_at = time.monotonic()
            self.limit_wait(None)

    def answer(self) -> None:
        """Record that an event has arrived for it."""
        self.answered = True
        self.start()

    def begin(self) -> None:
        """Record that a part of the response has arrived."""
        if not self.begun:
            self.begun = True
            self.lift_limit_to_begin()

    def lift_limit_to_begin(self) -> None:
        """Record that the response is being generated, even if nothing is visible before it is complete."""
        self._is_on_its_way = True
        for wait in self._waits_to_begin:
            if not wait.expired():
                wait.reschedule(None)

    @asynccontextmanager
    async def wait_to_begin(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        """Limit the wait for the first part of its response inside the block.

        Raise TimeoutError if that takes too long.
        """
        when = None if seconds is None or self._is_on_its_way else self.arrived_at + seconds
        async with asyncio.timeout_at(when) as wait:
            self._waits_to_begin.add(wait)
            try:
                yield wait
            finally:
                self._waits_to_begin.discard(wait)

    def limit_wait(self, seconds: float | None) -> None:
        """Limit how long it may wait, counted from its arrival, even while it waits."""
        when = None if seconds is None or self.started_at is not None else self.arrived_at + seconds
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(when)

    @asynccontextmanager
    async def wait(self, seconds: float | None) -> AsyncIterator[None]:
        """Limit its wait inside the block. Raise TimeoutError if that takes too long."""
        async with asyncio.timeout(None) as wait:
            self._waits.add(wait)
            try:
                self.limit_wait(seconds)
                yield
            finally:
                self._waits.discard(wait)


class Queue:
    """Requests of one entry."""

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
        """Return the position of a request, from 1, here or in the engine; None if it is not queued."""
        if ticket in self._queued:
            return self.occupancy.position(self._queued.index(ticket))
        unanswered = [each for each in self._inside if each.sent_at is not None and not each.answered]
        unanswered.sort(key=lambda each: each.sent_at or 0.0)
        if ticket not in unanswered:
            return None
        return self.occupancy.position_in_engine(unanswered.index(ticket), len(unanswered))

    def follow(self, options: EntryOptions) -> None:
        """Apply settings in place. Waiting requests keep their places, but wait no longer than now allowed."""
        self.options = options
        for ticket in (*self._queued, *self._inside):
            ticket.limit_wait(options.queue_timeout_seconds)
        self._admit()

    def replace_engine(self, engine: Instance) -> None:
        """Use another engine, which works on nothing yet."""
        self.engine = engine
        self._inside = {ticket for ticket in self._inside if ticket.sent_at is None}
        self._durations.clear()
        self._admit()

    def close(self) -> None:
        """Admit all requests, which then find that the entry is gone."""
        self._closed = True
        self._admit()

    @contextmanager
    def enter(self, ticket: Ticket) -> Iterator[None]:
        """Hold a request's place, first in the queue and then in the engine. Raise ModelBusy if there is none."""
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
                f"{self.name} could not start this request within {waited:.1f} s (queue_timeout_seconds)."
            ) from None

    def send(self, ticket: Ticket) -> None:
        """Record that the engine got the request. It starts at once if a slot is free."""
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
