"""Send events to the server, combined into few frames if the model is faster than any reader."""

from __future__ import annotations

import time
from collections.abc import Callable

from localapi.worker.protocol import Delta, Event, Last, Step, join

PACE_SECONDS = 0.025
"""Minimum time between two frames of text. Each frame wakes the server and the client, which with few cores costs a
tenth of a small model's speed. Models with longer steps send each step immediately."""
HEARTBEAT_SECONDS = 5
"""Time without a frame after which an empty one shows that the worker still completes steps."""


class Outbox:
    """Events that are not sent yet. A request's first text, and all other events than text, are sent immediately."""

    def __init__(
        self,
        send: Callable[[Step], None],
        step: Callable[[list[Event]], Step] = Step,
    ) -> None:
        """Create an outbox; `step` makes a frame of events and the worker's figures."""
        self._send = send
        self._step = step
        self._events: list[Event] = []
        self._latest: dict[tuple[int, int], Event] = {}
        """Last event of each response, by request and choice. Text may be appended to it."""
        self._unfinished: set[int] = set()
        self._begun: set[int] = set()
        """Requests whose first text has been sent."""
        self._sent_at = 0.0

    def expect(self, id: int) -> bool:  # noqa: A002  # the protocol's word
        """Record that a request was accepted. Return False if one with the same id is not finished yet."""
        is_new = id not in self._unfinished
        self._unfinished.add(id)
        return is_new

    def add(self, events: list[Event]) -> None:
        """Add a step's events, and send those that are due."""
        urgent = False
        for event in events:
            urgent |= self._add(event)
        if self._events and (urgent or time.monotonic() - self._sent_at >= PACE_SECONDS):
            self.flush()
        elif time.monotonic() - self._sent_at >= HEARTBEAT_SECONDS:
            self.heartbeat()

    def flush(self) -> None:
        """Send all events."""
        if self._events:
            self.heartbeat()

    def heartbeat(self) -> None:
        """Send all events, even if there are none, to show that this worker is alive."""
        self._send(self._step(self._events))
        self._events, self._latest = [], {}
        self._sent_at = time.monotonic()

    def forget(self, id: int) -> None:  # noqa: A002  # the protocol's word
        """Drop a request that is finished or was cancelled."""
        self._begun.discard(id)
        self._unfinished.discard(id)

    def _add(self, event: Event) -> bool:
        """Add an event; return True if it must be sent immediately."""
        answer = (event.id, getattr(event, "choice", 0))
        if not join(self._latest.get(answer), event):
            self._events.append(event)
            self._latest[answer] = event
        if isinstance(event, Last):
            self.forget(event.id)
            return True
        if not isinstance(event, Delta):
            return True
        first = event.id not in self._begun
        self._begun.add(event.id)
        return first
