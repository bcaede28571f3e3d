"""Several engines of one model, as one engine: they grow with the queue, shrink when idle, and replace each other.

Their number is determined by a pure function. This module knows engines and how to load another, but not what they are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from localapi.backends.choice import Candidate, ConversationMemory, conversation_keys, ranked
from localapi.backends.engine import Engine, ReportLoading, Supervised, Vitals
from localapi.backends.options import ReplicaLimits
from localapi.errors import ModelUnavailable, WorkerEnded
from localapi.runtime.backoff import Backoff
from localapi.system.byte_sizes import readable
from localapi.worker.protocol import AWAITING_ROOM, Event, Loaded, Loading, Preliminary, Request, Speculated

if TYPE_CHECKING:
    from localapi.runtime.instance import Instance

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
"""Interval for considering the number of replicas."""
GROW_SECONDS: Final = 2.0
"""Time for which requests must be queued before another replica is loaded."""

Start = Callable[[str, ReportLoading], Awaitable[Engine]]
"""Function that loads one more engine. Its name is for the log."""


@dataclass(eq=False)
class Replica:
    """One engine."""

    number: int
    engine: Engine
    drains: bool = False
    """True if it accepts no new requests, and ends once it is idle."""
    last_used: float = field(default_factory=time.monotonic)
    """Monotonic time."""
    requests: int = 0
    """Number of requests that it was given."""

    @property
    def is_idle(self) -> bool:
        """True if it has no request, including those from before there were several replicas."""
        vitals = self.engine.vitals()
        return self.requests + vitals.running + vitals.unanswered == 0


def wanted(count: int, limits: ReplicaLimits, *, queued_seconds: float, idle_seconds: float) -> int:
    """Return how many replicas there should be next.

    `queued_seconds` is how long requests have been queued without interruption; `idle_seconds` is how long the one that
    would end has been idle.
    """
    if count < limits.min:
        return count + 1
    if count > limits.max:
        return count - 1
    if queued_seconds >= GROW_SECONDS and count < limits.max:
        return count + 1
    if idle_seconds >= limits.idle and count > limits.min:
        return count - 1
    return count


class Replicas:
    """One engine that consists of several; see `backends.engine.Engine`. It starts with one, and grows by itself."""

    def __init__(self, name: str, first: Engine, limits: ReplicaLimits, *, start: Start, owner: Instance) -> None:
        self.name = name
        self.limits = limits
        self.loaded: Loaded = first.loaded
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.held_back: str | None = None
        """Reason why there are fewer than there should be, for people."""
        self.loading: Supervised | None = None
        """Process that loads another replica, if it can be measured and ended."""
        self._start = start
        self._owner = owner
        self._replicas: list[Replica] = []
        self.last_number = 0
        """Number of the newest replica, loaded or not."""
        self._conversations = ConversationMemory()
        self._backoff = Backoff()
        self._queued_since: float | None = None
        self._line: list[object] = []
        """Requests that wait for a slot, in order of arrival."""
        self._changed = asyncio.Event()
        self._closing = False
        self._growth: asyncio.Task[None] | None = None
        self._awaits_room = False
        """True while another replica waits for room on the cluster."""
        self._ends: set[asyncio.Task[None]] = set()
        self._add(first)
        self._governor = asyncio.create_task(self._govern(), name=f"replicas of {name}")

    # What others see

    @property
    def replicas(self) -> list[Replica]:
        """Loaded replicas."""
        return list(self._replicas)

    @property
    def supervised(self) -> list[Supervised]:
        """Everything that can be measured and ended, including a replica that is loading."""
        loading = [self.loading] if self.loading is not None else []
        return [*(each.engine for each in self._replicas), *loading]

    def vitals(self) -> Vitals:
        """Return the sum of all. For a replica that is loading, memory is reserved."""
        vitals = [each.engine.vitals() for each in self._replicas]
        sizes = [each.memory_bytes for each in vitals if each.memory_bytes is not None]
        rates = [each.tokens_per_second for each in vitals if each.tokens_per_second is not None]
        guesses = [each.speculated for each in vitals if each.speculated is not None]
        batches = [each.max_batch for each in vitals if each.max_batch is not None]
        steps = [each.last_step_at for each in vitals if each.last_step_at is not None]
        healthy = any(each.healthy for each in vitals)
        return Vitals(
            running=sum(each.running for each in vitals),
            unanswered=sum(each.unanswered for each in vitals) + len(self._line),
            queued=sum(each.queued for each in vitals) + len(self._line),
            max_batch=sum(batches) if len(batches) == len(vitals) and vitals else None,
            prompt_tokens_done=sum(each.prompt_tokens_done for each in vitals),
            prompt_tokens_total=sum(each.prompt_tokens_total for each in vitals),
            sound_seconds_done=sum(each.sound_seconds_done for each in vitals),
            sound_seconds_total=sum(each.sound_seconds_total for each in vitals),
            tokens_per_second=sum(rates) if rates else None,
            speculated=_summed(guesses) if guesses else None,
            memory_bytes=sum(sizes) if len(sizes) == len(vitals) else None,
            device_bytes=sum(each.device_bytes for each in vitals),
            last_step_at=max(steps, default=None),
            healthy=healthy or not vitals,
            reason=None if healthy else next((each.reason for each in vitals), None),
            pid=vitals[0].pid if vitals else None,
            node=vitals[0].node if vitals else None,
        )

    def follow(self, limits: ReplicaLimits) -> None:
        """Apply other limits: one replica at a time is added or removed."""
        self.limits = limits
        self._backoff.reset()

    def end(self, reason: str) -> None:
        """End all of them even if they have work."""
        for each in self.supervised:
            each.end(reason)

    # Requests

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events of the replica that knows the conversation, or of the least busy one.

        If it ends before the response begins, another replica gets the request.
        """
        keys = conversation_keys([request])
        failed: set[Replica] = set()
        while True:
            replica = await self._turn(keys, failed)
            replica.requests += 1
            begun = False
            try:
                async with aclosing(replica.engine.answer(request)) as events:
                    async for event in events:
                        begun = begun or not isinstance(event, Preliminary)
                        yield event
            except WorkerEnded as error:
                failed.add(replica)
                if begun or not self._others(failed):
                    raise
                log.warning("%s: request %d moves to another replica: %s", self.name, request.id, error.message)
            else:
                return
            finally:
                replica.requests -= 1
                replica.last_used = time.monotonic()
                self._change()

    async def _turn(self, keys: list[bytes], failed: set[Replica]) -> Replica:
        """Return the replica for a request as soon as one has a slot and all earlier requests have theirs.

        Requests wait here, and not in an engine, so that an additional replica can take them. Raise WorkerEnded if
        there is none.
        """
        turn = object()
        self._line.append(turn)
        try:
            while True:
                if self._line[0] is turn:
                    replica, has_slot = self._choose(keys, failed)
                    if has_slot:
                        self._conversations.note(keys, str(replica.number))
                        return replica
                await self._changed.wait()
        finally:
            self._line.remove(turn)
            self._change()

    def _change(self) -> None:
        """Let waiting requests check again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _others(self, failed: set[Replica]) -> list[Replica]:
        return [each for each in self._replicas if each not in failed and not each.engine.ended.done()]

    def _choose(self, keys: list[bytes], failed: set[Replica]) -> tuple[Replica, bool]:
        """Return the best replica for a request, and whether it has a slot. Raise WorkerEnded if there is none."""
        candidates: list[Candidate] = []
        places: dict[str, Replica] = {}
        for each in self._others(failed):
            slots = each.engine.vitals().max_batch
            name = str(each.number)
            is_full = slots is not None and each.requests >= slots
            away = "it ends when it is idle" if each.drains else None
            places[name] = each
            candidates.append(Candidate(name=name, requests=each.requests, slots=slots, is_full=is_full, away=away))
        order = ranked(candidates, "sticky", remembered=self._conversations.place_of(keys))
        if not order:
            kind = ModelUnavailable if self._closing else WorkerEnded
            raise kind(f"{self.name} has ended. Send the request again.")
        return places[order[0].name], not order[0].is_full

    # How many there are

    async def _govern(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.consider(time.monotonic())
            except Exception:  # a bug here must not end the model
                log.exception("%s: its replicas could not be considered", self.name)

    def consider(self, now: float) -> None:
        """Start one step that brings their number closer to what it should be: one load, or one end."""
        if self.vitals().queued == 0:
            self._queued_since = None
        elif self._queued_since is None:
            self._queued_since = now
        for each in self._replicas:
            if each.drains and each.is_idle:
                self._end_replica(each)
        if self._growth is not None:
            enough = len(self._replicas) >= self.limits.min and self._queued_since is None
            if enough and self._awaits_room:
                self._growth.cancel()
            return
        staying = [each for each in self._replicas if not each.drains]
        last = max(staying, key=lambda each: (each.is_idle, each.number), default=None)
        count = wanted(
            len(staying),
            self.limits,
            queued_seconds=0.0 if self._queued_since is None else now - self._queued_since,
            idle_seconds=now - last.last_used if last is not None and last.is_idle else 0.0,
        )
        if count > len(staying):
            self._grow(staying)
        elif count < len(staying) and last is not None:
            last.drains = True
            log.info("%s: replica %d ends", self.name, last.number)
            if last.is_idle:
                self._end_replica(last)
        else:
            self.held_back = None

    def _grow(self, staying: list[Replica]) -> None:
        drains = next((each for each in self._replicas if each.drains), None)
        if drains is not None:  # it is still there, and loaded
            drains.drains = False
            return
        if self._backoff.seconds_left > 0:
            return
        sizes = [each.engine.vitals().total_bytes or 0 for each in staying]
        size = max(sizes, default=0)
        if not self._owner.reserve_growth(size):
            held_back = f"no memory for another replica: it needs about {readable(size)} of server.memory_budget"
            if self.held_back is None:
                log.warning("%s: %d replicas; %s", self.name, len(staying), held_back)
            self.held_back = held_back
            return
        self.last_number += 1
        self._growth = asyncio.create_task(self._load(self.last_number, size), name=f"another replica of {self.name}")

    async def _load(self, number: int, size: int) -> None:
        name = f"{self.name}/{number}"
        log.info("%s: loading another replica", name)
        loaded = False
        try:
            engine = await self._start(name, self._report)
        except Exception as error:
            self._backoff.failed()
            self.held_back = str(error)
            log.error("%s: the replica failed to load: %s", name, error)
        else:
            self._backoff.reset()
            self.held_back = self._queued_since = None
            self._add(engine, number)
            loaded = True
            log.info("%s: loaded; replicas: %d", name, len(self._replicas))
        finally:
            self.loading = self._growth = None
            self._awaits_room = False
            self._owner.end_growth(size, loaded=loaded)

    def _report(self, progress: Loading, by: Supervised | None = None) -> None:
        self.loading = by
        self._awaits_room = progress.phase == AWAITING_ROOM
        self.held_back = progress.text if self._awaits_room else None

    def _add(self, engine: Engine, number: int = 1) -> None:
        replica = Replica(number, engine)
        self.last_number = max(self.last_number, number)
        self._replicas.append(replica)
        self._change()
        engine.ended.add_done_callback(lambda ended: self._on_ended(replica, ended))

    def _on_ended(self, replica: Replica, ended: asyncio.Future[str]) -> None:
        """Continue without a replica that has ended by itself."""
        if replica not in self._replicas or self._closing or ended.cancelled():
            return
        reason = ended.result()
        self._end_replica(replica)
        if self._replicas:
            self._backoff.failed()
            log.error("%s/%d: %s; remaining replicas: %d", self.name, replica.number, reason, len(self._replicas))
            self._owner.note_replica_ended(reason)
        elif not self.ended.done():
            self.ended.set_result(reason)

    def _end_replica(self, replica: Replica) -> None:
        self._replicas.remove(replica)
        self._change()
        task = asyncio.create_task(replica.engine.close(), name=f"close {self.name}/{replica.number}")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def close(self) -> None:
        """End all of them, including one that is loading."""
        self._closing = True
        self._governor.cancel()
        if self._growth is not None:
            self._growth.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self._growth])
        for each in list(self._replicas):
            self._end_replica(each)
        await asyncio.gather(self._governor, *self._ends, return_exceptions=True)


def _summed(counts: list[Speculated]) -> Speculated:
    return Speculated(
        forced=sum(each.forced for each in counts),
        proposed=sum(each.proposed for each in counts),
        accepted=sum(each.accepted for each in counts),
    )
