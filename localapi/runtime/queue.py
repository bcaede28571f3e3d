"""Who works and who waits at one entry: first come, first served, within the entry's limits.

Knows requests by their turns, and nothing else of them; nothing of models either.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from statistics import fmean
from typing import Final, Protocol

from localapi.backends.options import EntryOptions
from localapi.errors import ModelBusy

RECENT: Final = 20
"""Requests whose durations say how long the next ones will take."""
UNKNOWN_SECONDS: Final = 2.0
"""What a request is taken to last before one has ended."""
LONGEST_RETRY_SECONDS: Final = 600.0


class Engine(Protocol):
    """What works on the turns."""

    @property
    def max_batch(self) -> int | None:
        """Requests that it answers at the same time; None: all."""

    @property
    def queued(self) -> int:
        """Requests that it was given and has not begun."""


class Turn:
    """One request's way: it waits, is let in, and works when its model is there."""

    def __init__(self) -> None:
        self.came = time.monotonic()
        self.begun: float | None = None
        """When its engine was asked. All by the monotonic clock, which is the loop's."""
        self.worked_since: float | None = None
        """When its engine began with it, or had a place for it; None while it waits inside the engine."""
        self.heard = False
        """Whether anything has come of it."""
        self._let_in = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()
        """Its waits, as they go on: one, or one for each answer that was asked for."""

    @property
    def in_line(self) -> bool:
        """Whether it may wait inside its engine."""
        return self.begun is not None and not self.heard

    async def let_in(self) -> None:
        """Wait for it."""
        await self._let_in.wait()

    def queue(self) -> None:
        """It is in a queue, for the first time or again."""
        self._let_in.clear()

    def enter(self) -> None:
        """Let it in."""
        self._let_in.set()

    def works(self) -> None:
        """Its engine began with it: it no longer waits."""
        if self.worked_since is None:
            self.worked_since = time.monotonic()
            self.wait_at_most(None)

    def hear(self) -> None:
        """Something has come of it."""
        self.heard = True
        self.works()

    def wait_at_most(self, seconds: float | None) -> None:
        """How long it may wait, counted from when it came; also while it does."""
        when = None if seconds is None or self.worked_since is not None else self.came + seconds
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(when)

    @asynccontextmanager
    async def patience(self, seconds: float | None) -> AsyncIterator[None]:
        """For as long as it waits. Raises TimeoutError."""
        async with asyncio.timeout(None) as wait:
            self._waits.add(wait)
            try:
                self.wait_at_most(seconds)
                yield
            finally:
                self._waits.discard(wait)


class Admission:
    """The turns of one entry."""

    def __init__(self, name: str, options: EntryOptions, engine: Engine) -> None:
        self.name = name
        self.options = options
        self.engine = engine
        self._queue: list[Turn] = []
        self._inside: set[Turn] = set()
        self._durations: deque[float] = deque(maxlen=RECENT)
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests that no engine works on: in the queue, let in and without a loaded model yet, or in its line."""
        return self._waiting_here + min(self.engine.queued, len(self._inside))

    @property
    def _waiting_here(self) -> int:
        return len(self._queue) + sum(turn.begun is None for turn in self._inside)

    @property
    def _at_once(self) -> int | None:
        """How many can be worked on at the same time."""
        bounds = [bound for bound in (self.options.max_concurrent, self.engine.max_batch) if bound is not None]
        return min(bounds, default=None)

    @property
    def _free(self) -> int | None:
        """How many more can be worked on; None: any number."""
        if self.engine.queued:
            return 0  # it may be full for another reason than their number
        at_work = len(self._inside) + len(self._queue) - self._waiting_here
        return None if self._at_once is None else max(0, self._at_once - at_work)

    def before(self, turn: Turn) -> int | None:
        """How many wait before this one, in the queue or in the engine's line; None where it is in neither."""
        if turn in self._queue:
            return self._queue.index(turn) + self.waiting - len(self._queue)
        given = sorted((each for each in self._inside if each.in_line), key=lambda each: each.begun or 0.0)
        # Of those of which nothing has come, the engine may have begun with the first.
        line = given[max(0, len(given) - self.engine.queued) :]
        return line.index(turn) if turn in line else None

    def follow(self, options: EntryOptions) -> None:
        """Apply settings in place. Who waits already keeps the place, but waits no longer than is now allowed."""
        self.options = options
        for turn in (*self._queue, *self._inside):
            turn.wait_at_most(options.queue_timeout_seconds)
        self._let_in()

    def renew(self) -> None:
        """Another model takes the place of the one that is worked on: nobody works on it yet."""
        self._inside = {turn for turn in self._inside if turn.begun is None}
        self._durations.clear()
        self._let_in()

    def close(self) -> None:
        """Let everybody in, to see that there is nothing here any more."""
        self._closed = True
        self._let_in()

    @contextmanager
    def place(self, turn: Turn) -> Iterator[None]:
        """A turn's place, in the queue and then inside. Raises ModelBusy."""
        if self._full:
            waiting = f"{self.waiting} waiting already (max_waiting)"
            raise self._busy(f"No more requests may wait for {self.name}: {waiting}.")
        turn.queue()
        self._queue.append(turn)
        self._let_in()
        try:
            yield
        finally:
            if turn in self._queue:
                self._queue.remove(turn)
            self._inside.discard(turn)
            if turn.worked_since is not None:
                self._durations.append(time.monotonic() - turn.worked_since)
            self._let_in()

    @asynccontextmanager
    async def patience(self, turn: Turn) -> AsyncIterator[None]:
        """For as long as a turn waits. Raises ModelBusy when that took too long."""
        try:
            async with turn.patience(self.options.queue_timeout_seconds):
                yield
        except TimeoutError:
            waited = time.monotonic() - turn.came
            raise self._busy(f"{self.name} had no time for this request within {waited:.1f} s.") from None

    def begin(self, turn: Turn) -> None:
        """An engine is asked, and works on it from now on if it has a place."""
        if self._free != 0:
            turn.works()
        turn.begun = time.monotonic()

    @property
    def _full(self) -> bool:
        most, soon = self.options.max_waiting, self._free  # these wait for the model alone, if it is not there
        return most is not None and self.waiting >= most + (1 if soon is None else soon)

    def _let_in(self) -> None:
        at_once = self.options.max_concurrent
        while self._queue and (self._closed or at_once is None or len(self._inside) < at_once):
            turn = self._queue.pop(0)
            self._inside.add(turn)
            turn.enter()

    def _busy(self, message: str) -> ModelBusy:
        each = fmean(self._durations) if self._durations else UNKNOWN_SECONDS
        at_once = self._at_once or max(1, len(self._inside))
        seconds = min(LONGEST_RETRY_SECONDS, max(1.0, each * (self.waiting + 1) / at_once))
        return ModelBusy(f"{message} Try again in {seconds:.0f} s.", retry_after_seconds=seconds)
