"""Events on their way to the server: joined to few frames where a model is faster than anybody reads."""

from __future__ import annotations

import time
from collections.abc import Callable

from localapi.worker.protocol import Delta, Event, Last, Step, join

PACE_SECONDS = 0.025
"""Between two frames of mere text. Each one wakes the server and the client, and on few cores they take what the model
would use: a tenth of a small model's speed. Models that take longer for a step send each one at once."""
SIGN_SECONDS = 5
"""After so long without a frame an empty one tells that steps end, although they bring nothing to tell."""


class Outbox:
    """What is not sent yet. A request's first text and whatever is no text goes at once."""

    def __init__(
        self,
        send: Callable[[Step], None],
        step: Callable[[list[Event]], Step] = Step,
    ) -> None:
        """`step` makes the frame of some events, with what else the worker has to tell."""
        self._send = send
        self._step = step
        self._events: list[Event] = []
        self._latest: dict[tuple[int, int], Event] = {}
        """The last event of each answer, by request and choice: text may be added to it."""
        self._begun: set[int] = set()
        """Requests whose first text has gone."""
        self._sent_at = 0.0

    def add(self, events: list[Event]) -> None:
        """Take what a step brought, and send what is due."""
        urgent = False
        for event in events:
            urgent |= self._add(event)
        if self._events and (urgent or time.monotonic() - self._sent_at >= PACE_SECONDS):
            self.flush()
        elif time.monotonic() - self._sent_at >= SIGN_SECONDS:
            self.sign()

    def flush(self) -> None:
        """Send everything."""
        if self._events:
            self.sign()

    def sign(self) -> None:
        """Send everything, even if that is nothing: whoever gets it knows that this worker goes on."""
        self._send(self._step(self._events))
        self._events, self._latest = [], {}
        self._sent_at = time.monotonic()

    def forget(self, id: int) -> None:  # noqa: A002  # the protocol's word
        """Nobody waits for this request any more."""
        self._begun.discard(id)

    def _add(self, event: Event) -> bool:
        """Whether it has to go at once."""
        answer = (event.id, getattr(event, "choice", 0))
        if not join(self._latest.get(answer), event):
            self._events.append(event)
            self._latest[answer] = event
        if isinstance(event, Last):
            self._begun.discard(event.id)
            return True
        if not isinstance(event, Delta):
            return True
        first = event.id not in self._begun
        self._begun.add(event.id)
        return first
