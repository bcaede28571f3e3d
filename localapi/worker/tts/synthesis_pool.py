"""Requests that are answered on several threads, part by part, each in its own order and nobody for long at a time.

For engines that compute outside the interpreter lock. A request is a row of parts; a part is done in pieces, which
cannot be interrupted. Idle threads take pieces by turns from the requests, and from one request the earliest; what
comes of a part waits until the parts before it are done. Knows nothing of speech.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from localapi.worker.protocol import Event, Failed


class Job(Protocol):
    """One part of a request."""

    @property
    def done(self) -> bool:
        """Whether there are no more pieces."""

    def advance(self, *, alone: bool) -> list[Event]:
        """Do one piece, on any thread. `alone`: nothing else runs meanwhile, so all cores are free for it."""


@dataclass(eq=False)
class _StartedJob:
    """A part that has been begun."""

    part: Job
    events: list[Event] = field(default_factory=list)
    running: bool = False


@dataclass(eq=False)
class _PooledRequest:
    """A request."""

    id: int
    waiting: deque[Job]
    last: Event
    begun: deque[_StartedJob] = field(default_factory=deque)
    """In order; the first may send its events at once."""
    untouched: bool = True
    dropped: bool = False

    @property
    def idle(self) -> Iterable[_StartedJob]:
        return (place for place in self.begun if not place.running and not place.part.done)

    @property
    def pieces(self) -> int:
        """How many threads it could use now."""
        return sum(1 for _ in self.idle) + len(self.waiting)


class SynthesisPool:
    """The threads, and the requests that they work on. Its methods are for the main thread."""

    def __init__(self, threads: int, wake: Callable[[], None]) -> None:
        """`wake` is called on a thread when there are events."""
        self._wake = wake
        self._changed = threading.Condition()
        self._asked: deque[_PooledRequest] = deque()
        """In the order of their turns."""
        self._events: list[Event] = []
        self._running = 0
        self._alone = False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"turns {number}", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether there are events to fetch."""
        return bool(self._events)

    def add(self, id: int, parts: Iterable[Job], last: Event) -> bool:  # noqa: A002  # the protocol's word
        """Take a request, and whether it is a new one. `last` is its event when all parts are done."""
        with self._changed:
            if any(asked.id == id for asked in self._asked):
                return False
            self._asked.append(asked := _PooledRequest(id, deque(parts), last))
            self._send(asked)
            self._changed.notify_all()
            return True

    def say(self, event: Event) -> None:
        """Have an event sent that needs no work."""
        with self._changed:
            self._events.append(event)

    def drop(self, id: int) -> None:  # noqa: A002  # the protocol's word
        """Forget a request and its events; a piece that is being done is done for nothing."""
        with self._changed:
            for asked in [asked for asked in self._asked if asked.id == id]:
                self._forget(asked)
            self._events = [event for event in self._events if event.id != id]

    def events(self) -> list[Event]:
        """What has come since the last call."""
        with self._changed:
            events, self._events = self._events, []
            return events

    def _work(self) -> None:
        while True:
            asked, place, alone = self._next()
            events: list[Event]
            try:
                events, failed = place.part.advance(alone=alone), False
            except Exception as error:  # of one request: the others go on
                message = f"The speech could not be made: {type(error).__name__}: {error}"
                events, failed = [Failed(asked.id, "generation_failed", message)], True
            if self._settle(asked, place, events, failed=failed):
                self._wake()

    def _next(self) -> tuple[_PooledRequest, _StartedJob, bool]:
        """Wait for a piece to do."""
        with self._changed:
            while self._alone or (asked := next((each for each in self._asked if each.pieces), None)) is None:
                self._changed.wait()
            # The first piece of a request is what somebody waits for: it has all cores, if they are free.
            only = sum(each.pieces for each in self._asked) == 1
            self._alone = not self._running and (only or asked.untouched)
            self._running += 1
            asked.untouched = False
            place = next(iter(asked.idle), None)
            if place is None:
                asked.begun.append(place := _StartedJob(asked.waiting.popleft()))
            place.running = True
            self._to_the_end(asked)
            return asked, place, self._alone

    def _settle(self, asked: _PooledRequest, place: _StartedJob, events: list[Event], *, failed: bool) -> bool:
        """Note what came of a piece; whether there are events now and were none before."""
        with self._changed:
            self._running -= 1
            self._alone = False
            place.running = False
            waiting = bool(self._events)
            if not asked.dropped:
                self._to_the_end(asked)  # behind those that came meanwhile
                if failed:
                    self._events += events
                    self._forget(asked)
                else:
                    place.events += events
                    self._send(asked)
            self._changed.notify_all()
            return bool(self._events) and not waiting

    def _send(self, asked: _PooledRequest) -> None:
        """Make events known as far as they are in order."""
        while asked.begun:
            first = asked.begun[0]
            self._events += first.events
            first.events = []
            if first.running or not first.part.done:
                return
            asked.begun.popleft()
        if not asked.waiting:
            self._events.append(asked.last)
            self._forget(asked)

    def _to_the_end(self, asked: _PooledRequest) -> None:
        self._asked.remove(asked)
        self._asked.append(asked)

    def _forget(self, asked: _PooledRequest) -> None:
        asked.dropped = True
        self._asked.remove(asked)
