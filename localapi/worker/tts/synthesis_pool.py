"""Synthesize several requests on several threads, in turns, and each request's audio in order.

For models that compute outside the interpreter lock. A request is a list of jobs; a job is done in pieces, which cannot
be interrupted. Idle threads take pieces from the requests in turns, and from each request the earliest one; the events
of a job wait until the jobs before it are done. This module knows nothing of speech.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from localapi.worker.protocol import Event, Failed


class Job(Protocol):
    """One job of a request."""

    @property
    def done(self) -> bool:
        """True if there are no more pieces."""

    def advance(self, *, alone: bool) -> list[Event]:
        """Do one piece, on any thread. If `alone`, nothing else runs meanwhile, so all cores are free for it."""


@dataclass(eq=False)
class _StartedJob:
    """A job that has been started."""

    job: Job
    events: list[Event] = field(default_factory=list)
    running: bool = False


@dataclass(eq=False)
class _PooledRequest:
    """A request in the pool."""

    id: int
    waiting: deque[Job]
    last: Event
    started_jobs: deque[_StartedJob] = field(default_factory=deque)
    """The started jobs in order. Only the first may send its events."""
    untouched: bool = True
    dropped: bool = False

    @property
    def idle(self) -> Iterable[_StartedJob]:
        return (started for started in self.started_jobs if not started.running and not started.job.done)

    @property
    def pieces(self) -> int:
        """Number of threads that the request could use now."""
        return sum(1 for _ in self.idle) + len(self.waiting)


class SynthesisPool:
    """Threads and their requests. Call its methods on the main thread."""

    def __init__(self, threads: int, wake: Callable[[], None]) -> None:
        """Create a pool; `wake` is called on one of its threads when there are events."""
        self._wake = wake
        self._changed = threading.Condition()
        self._requests: deque[_PooledRequest] = deque()
        """Requests in the order of their turns."""
        self._events: list[Event] = []
        self._running = 0
        self._alone = False
        for number in range(threads):
            threading.Thread(target=self._work, name=f"turns {number}", daemon=True).start()

    @property
    def busy(self) -> bool:
        """True if there are events to take."""
        return bool(self._events)

    def add(self, id: int, jobs: Iterable[Job], last: Event) -> None:  # noqa: A002  # the protocol's word
        """Add a request; `last` is its event when all jobs are done."""
        with self._changed:
            request = _PooledRequest(id, deque(jobs), last)
            self._requests.append(request)
            self._send(request)
            self._changed.notify_all()

    def say(self, event: Event) -> None:
        """Add an event that needs no work."""
        with self._changed:
            self._events.append(event)

    def drop(self, id: int) -> None:  # noqa: A002  # the protocol's word
        """Drop a request and its events. The result of a piece in progress is discarded."""
        with self._changed:
            for request in [request for request in self._requests if request.id == id]:
                self._forget(request)
            self._events = [event for event in self._events if event.id != id]

    def events(self) -> list[Event]:
        """Return the events since the last call."""
        with self._changed:
            events, self._events = self._events, []
            return events

    def _work(self) -> None:
        while True:
            request, started, alone = self._next()
            events: list[Event]
            try:
                events, failed = started.job.advance(alone=alone), False
            except Exception as error:  # only this request fails
                message = f"Speech synthesis failed: {type(error).__name__}: {error}"
                events, failed = [Failed(request.id, "generation_failed", message)], True
            if self._settle(request, started, events, failed=failed):
                self._wake()

    def _next(self) -> tuple[_PooledRequest, _StartedJob, bool]:
        """Wait for a piece to do."""
        with self._changed:
            request = self._next_request()
            while request is None:
                self._changed.wait()
                request = self._next_request()
            # A listener waits for the first piece of a request, so that piece gets all cores if they are free.
            only = sum(each.pieces for each in self._requests) == 1
            self._alone = not self._running and (only or request.untouched)
            self._running += 1
            request.untouched = False
            started = next(iter(request.idle), None)
            if started is None:
                started = _StartedJob(request.waiting.popleft())
                request.started_jobs.append(started)
            started.running = True
            self._to_the_end(request)
            return request, started, self._alone

    def _next_request(self) -> _PooledRequest | None:
        if not self._alone:
            for request in self._requests:
                if request.pieces:
                    return request
        return None

    def _settle(self, request: _PooledRequest, started: _StartedJob, events: list[Event], *, failed: bool) -> bool:
        """Record the events of a piece; return True if there are events now and were none before."""
        with self._changed:
            self._running -= 1
            self._alone = False
            started.running = False
            waiting = bool(self._events)
            if not request.dropped:
                self._to_the_end(request)  # after those that arrived meanwhile
                if failed:
                    self._events += events
                    self._forget(request)
                else:
                    started.events += events
                    self._send(request)
            self._changed.notify_all()
            return bool(self._events) and not waiting

    def _send(self, request: _PooledRequest) -> None:
        """Release events as far as they are in order."""
        while request.started_jobs:
            first = request.started_jobs[0]
            self._events += first.events
            first.events = []
            if first.running or not first.job.done:
                return
            request.started_jobs.popleft()
        if not request.waiting:
            self._events.append(request.last)
            self._forget(request)

    def _to_the_end(self, request: _PooledRequest) -> None:
        self._requests.remove(request)
        self._requests.append(request)

    def _forget(self, request: _PooledRequest) -> None:
        request.dropped = True
        self._requests.remove(request)
