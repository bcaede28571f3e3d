"""Interface between the server and whatever answers a request.

An engine is one loaded model, whatever runs it: the server itself, a worker process, or another server. Code outside
`backends` does not know which, and asks for its vitals. Requests and events are the structs of `worker.protocol`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol

from localapi.worker.protocol import Event, Loaded, Loading, Preliminary, Request, Speculated


@dataclass(frozen=True, kw_only=True)
class RankVitals:
    """State of one of the processes that together hold a model."""

    rank: int
    """Rank; rank 0 answers the requests, and decides what the others do."""
    address: str
    """Address at which it listens for the other ranks."""
    node: str | None
    """Node of a cluster on which it runs; None for this machine."""
    pid: int | None
    memory_bytes: int | None
    """Memory, including that of an accelerator."""
    state: Literal["loading", "ready", "silent"]
    """State; "silent" if a report is overdue."""


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """State of an engine at this moment; None means unknown. Times are of the monotonic clock."""

    running: int = 0
    """Requests with output so far."""
    unanswered: int = 0
    """Requests without output so far, including queued ones."""
    queued: int = 0
    """Requests queued in the engine."""
    max_batch: int | None = None
    """Maximum requests answered concurrently; None if the engine never queues requests."""
    prompt_tokens_done: int = 0
    prompt_tokens_total: int = 0
    """Tokens of the long prompts that are being processed."""
    sound_seconds_done: float = 0.0
    sound_seconds_total: float = 0.0
    """Total length of the files being transcribed."""
    tokens_per_second: float | None = None
    """Generation rate over the last seconds, summed over all responses."""
    speculated: Speculated | None = None
    """Tokens that were computed together; None if the engine does not speculate or does not report it."""
    latency_seconds: float | None = None
    """Time from the last answered request to its first output."""
    memory_bytes: int | None = None
    """Main memory of its machine that only this engine uses; 0 if it has no process."""
    device_bytes: int = 0
    """Memory of an accelerator that `memory_bytes` does not include."""
    cpu_seconds: float | None = None
    """Processor time since the engine started."""
    waits_computing: bool = False
    """True if processor time does not show progress, because processes compute while they wait for each other."""
    loading: bool = False
    """True until the model is loaded."""
    last_step_at: float | None = None
    """Time of the last step that the engine reported."""
    silent_since: float | None = None
    """Time of its last report, or of a later request to an idle engine; None if no report is due."""
    healthy: bool = True
    reason: str | None = None
    """Reason why the engine is unhealthy, for people."""
    pid: int | None = None
    """Process id, for display only."""
    node: str | None = None
    """Node of a cluster that it runs on; None for this machine."""
    ranks: tuple[RankVitals, ...] = ()
    """Processes that together hold the model; empty if one process holds it."""

    @property
    def idle(self) -> bool:
        """True if the engine has nothing to do."""
        return self.running + self.unanswered == 0 and self.silent_since is None and not self.loading

    @property
    def total_bytes(self) -> int | None:
        """Memory of its machine."""
        return None if self.memory_bytes is None else self.memory_bytes + self.device_bytes


connect_limit: ContextVar[float | None] = ContextVar("connect_limit", default=None)
"""Time limit in seconds to connect to the server of an engine for the current request; None for the entry's value."""

via: ContextVar[tuple[str, ...]] = ContextVar("via", default=())
"""Ids of the servers that the current request has passed, this one last; empty without a request of a client."""
VIA_HEADER: Final = "x-localapi-via"
"""Header that passes these ids to the next server."""

trace_headers: ContextVar[Mapping[str, str]] = ContextVar("trace_headers", default=MappingProxyType({}))
"""Headers that make requests to other servers part of the client's trace, or of our own."""


class Supervised(Protocol):
    """Engine that can be measured and ended, even while its model loads."""

    def vitals(self) -> Vitals:
        """Return the current state within microseconds: every request and every `/status` reply needs it."""

    def end(self, reason: str) -> None:
        """End the engine even if it has work. `reason` is for people: "hung: it did nothing for 120 s"."""


class Engine(Supervised, Protocol):
    """One loaded model."""

    @property
    def loaded(self) -> Loaded:
        """Facts that the model reported when it was loaded."""

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done once the engine has ended unexpectedly; the result is the reason, for people."""

    def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events for `request.id`, up to and including one that is a `protocol.Last`.

        Closing the generator cancels the request. Raise `errors.ApiError`: InvalidRequest, ContextLengthExceeded,
        GenerationFailed, or ModelUnavailable if the engine ends before the response is complete.
        """

    async def close(self) -> None:
        """End the engine and free its memory. Running requests get ModelUnavailable."""


class ReportLoading(Protocol):
    """Function that a backend calls while it loads a model."""

    def __call__(self, progress: Loading, by: Supervised | None = None) -> None:
        """Record the progress, and the loading engine once it can be measured and ended."""


class InProcessEngine(ABC):
    """Engine that counts its requests; see `backends.engine.Engine`."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._given = 0
        self._begun = 0

    @property
    def loaded(self) -> Loaded:
        return Loaded()

    @abstractmethod
    def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events of one response, as `Engine.answer` does."""

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        self._given += 1
        begun = False
        try:
            async with aclosing(self.generate(request)) as events:
                async for event in events:
                    if not begun and not isinstance(event, Preliminary):
                        begun = True
                        self._begun += 1
                    yield event
        finally:
            self._given -= 1
            self._begun -= begun

    def vitals(self) -> Vitals:
        return Vitals(running=self._begun, unanswered=self._given - self._begun, memory_bytes=0)

    def end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    async def close(self) -> None:  # noqa: B027  # most have no resources
        """Do nothing; engines with resources override it."""
