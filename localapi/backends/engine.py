"""The seam between the server and whatever answers a request.

An engine is one loaded model, whatever runs it: the server itself, a worker process, or another server. Nobody outside
`backends` knows which: they ask for its vitals. Requests and events are the structs of `worker.protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from localapi.worker.protocol import Event, Loaded, Loading, Request


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """How an engine is at this moment. None means that nobody can tell."""

    running: int = 0
    """Requests of which something has come."""
    unanswered: int = 0
    """Requests of which nothing has come yet, queued ones included."""
    queued: int = 0
    """Requests that wait for a place inside the engine."""
    max_batch: int | None = None
    """Requests that it answers concurrently; None: it never queues any."""
    prompt_tokens_done: int = 0
    prompt_tokens_total: int = 0
    """Tokens of the long prompts that are being read."""
    tokens_per_second: float | None = None
    """Over the last moments, in all answers."""
    memory_bytes: int | None = None
    """Main memory of this machine that it alone takes; 0 if it has no process of its own."""
    device_bytes: int = 0
    """Memory of an accelerator that `memory_bytes` does not contain."""
    cpu_seconds: float | None = None
    """Processor time since it began."""
    loading: bool = False
    last_step_at: float | None = None
    """When it last told of a step, by the monotonic clock like every moment here."""
    silent_since: float | None = None
    """When it last gave a sign, or was asked after that. None if it owes none, or gives none."""
    healthy: bool = True
    reason: str | None = None
    """Why it is not healthy, for people."""
    pid: int | None = None
    """Process id, for people to look up. Nothing may act on it."""

    @property
    def idle(self) -> bool:
        """True if it has nothing to do."""
        return self.running + self.unanswered == 0 and self.silent_since is None and not self.loading

    @property
    def total_bytes(self) -> int | None:
        """Memory that the budget has to count."""
        return None if self.memory_bytes is None else self.memory_bytes + self.device_bytes


class Supervised(Protocol):
    """What can be measured and ended: an engine, from the moment that something runs to load its model."""

    def vitals(self) -> Vitals:
        """Return how it is. Takes microseconds: it is asked for every request and every reply of `/status`."""

    def end(self, reason: str) -> None:
        """End it although it has work. `reason` is for people: "hung: it did nothing for 120 s and was ended"."""


class Engine(Supervised, Protocol):
    """One loaded model."""

    @property
    def loaded(self) -> Loaded:
        """What the model said of itself when it was loaded."""

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when the engine has ended without being asked to; its result says why, for people."""

    def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer one request.

        Yields events for `request.id` up to and including the one that is a `protocol.Last`. Closing the generator
        cancels the request. Raises `errors.ApiError`: InvalidRequest, ContextLengthExceeded, GenerationFailed;
        ModelUnavailable when the engine ends before the answer does.
        """

    async def close(self) -> None:
        """End it and give its memory back. Requests that still run get ModelUnavailable."""


class ReportLoading(Protocol):
    """What a backend calls as loading goes on."""

    def __call__(self, progress: Loading, by: Supervised | None = None) -> None:
        """Take note of the progress, and of what does the loading, if that can be measured and ended."""
