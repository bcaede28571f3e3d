"""One model over several workers, as one engine.

Each worker is a *rank* and holds a part of the model. Rank 0 gets the requests and sends plans to the others, which are
watched here. All ranks start and end together, because none is of use without the others.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final, Literal

from localapi.backends.engine import RankVitals, ReportLoading, Supervised, Vitals
from localapi.backends.ray_cluster import Site, reserved
from localapi.backends.worker_engine import WorkerEngine, WorkerSetup, open_worker
from localapi.errors import PortTaken
from localapi.worker.protocol import AWAITING_RANKS, Event, Loaded, Loading, Rank, Request

log = logging.getLogger(__name__)

TRIES: Final = 3
"""Maximum attempts to start ranks whose ports are taken before they listen."""
SIGN_SECONDS: Final = 15
"""Time after which a report of a following rank is overdue. It sends one every 5 s, and waits for rank 0 before."""


async def start_ranks(
    name: str, engine: str, options: Mapping[str, Any], count: int, setup: WorkerSetup, *, report: ReportLoading
) -> ShardedEngine:
    """Start this many workers, load a part of the model in each, and return the engine. Raise LoadFailed.

    After any failure or cancellation, all workers have ended when this returns.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            return await _try_ranks(name, engine, options, count, setup, report=report)
        except PortTaken as error:
            if tries_left == 0:
                raise
            log.warning("%s: %s Restarting the ranks with other ports.", name, error.message)
    raise AssertionError


async def _try_ranks(
    name: str, engine: str, options: Mapping[str, Any], count: int, setup: WorkerSetup, *, report: ReportLoading
) -> ShardedEngine:
    ranks: dict[int, WorkerEngine] = {}
    reservation = AsyncExitStack()
    sharded = ShardedEngine(name, ranks, reservation)
    try:
        sites: Sequence[Site | None] = [None] * count
        site = setup.site
        if site is not None:
            report(Loading(f"looking for room for {count} ranks on the cluster {site.cluster}"))
            sites = await reservation.enter_async_context(reserved(site, count))

        async def open_rank(number: int) -> None:
            # Rank 0 needs a second port, for its plans.
            own = replace(setup, site=sites[number])
            ranks[number] = await open_worker(f"{name} rank {number}", own, ports=2 if number == 0 else 1)

        await _all(open_rank(number) for number in range(count))
        addresses = [ranks[number].addresses[0] for number in range(count)]
        plans, secret = ranks[0].addresses[1], secrets.token_bytes(32)
        own_gpus = None if site is None else math.floor(site.place.gpus)
        for number in range(count):
            ranks[number].load(engine, options, Rank(number, addresses, plans, secret, own_gpus))
        await sharded.wait_until_loaded(report)
    except BaseException:
        await sharded.close()
        raise
    return sharded


async def _all(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Await all of these concurrently. If one fails or this is cancelled, cancel the others and wait for them."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ShardedEngine:
    """Engine in several workers; see `backends.engine.Engine`."""

    def __init__(self, name: str, ranks: Mapping[int, WorkerEngine], reservation: AsyncExitStack) -> None:
        """Create the engine of all ranks, ordered by number; `reservation` is released after them."""
        self.name = name
        self._ranks = ranks
        self._reservation = reservation
        self._phases: dict[int, str] = {}
        """Current phase of each rank while it loads."""
        self._watch: asyncio.Task[None] | None = None

    @property
    def _in_order(self) -> list[WorkerEngine]:
        return [self._ranks[number] for number in sorted(self._ranks)]

    @property
    def loaded(self) -> Loaded:
        return self._ranks[0].loaded

    @property
    def ended(self) -> asyncio.Future[str]:
        # Rank 0's, because it is done at the moment when its requests fail, before they can be retried.
        return self._ranks[0].ended

    def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        return self._ranks[0].answer(request)

    def vitals(self) -> Vitals:
        each = [rank.vitals() for rank in self._in_order]
        memory = [vitals.memory_bytes for vitals in each if vitals.memory_bytes is not None]
        return replace(
            each[0],
            memory_bytes=sum(memory) if memory else None,
            device_bytes=sum(vitals.device_bytes for vitals in each),
            cpu_seconds=self._cpu_seconds(each),
            waits_computing=self._watch is not None,
            loading=self._watch is None,
            silent_since=self._silent_since(each),
            ranks=tuple(self._rank(number, vitals) for number, vitals in enumerate(each)),
        )

    def _cpu_seconds(self, each: Sequence[Vitals]) -> float:
        """Return the processor time of all ranks; during loading, that of the rank that computes least."""
        times = [vitals.cpu_seconds or 0.0 for vitals in each]
        if self._watch is not None:
            return sum(times)
        # A rank that hangs makes no progress; the others, which compute while they wait, overtake it.
        working = [spent for number, spent in enumerate(times) if self._phases.get(number) != AWAITING_RANKS]
        return min(working or times)

    def _silent_since(self, each: Sequence[Vitals]) -> float | None:
        """Return since when a rank's report is overdue. A rank that hangs keeps all others waiting, silently too."""
        if self._watch is None:
            silent = {number: v.silent_since for number, v in enumerate(each) if v.silent_since is not None}
            working = [at for number, at in silent.items() if self._phases.get(number) != AWAITING_RANKS]
            return min(working) if working else max(silent.values(), default=None)
        signs = [v.last_step_at for v in each[1:] if v.last_step_at is not None and _overdue(v.last_step_at)]
        if each[0].silent_since is not None:
            signs.append(each[0].silent_since)
        return min(signs, default=None)

    def _rank(self, number: int, vitals: Vitals) -> RankVitals:
        state: Literal["loading", "ready", "silent"] = "loading" if vitals.loading else "ready"
        sign = vitals.silent_since if number == 0 else vitals.last_step_at
        if self._watch is not None and sign is not None and _overdue(sign):
            state = "silent"
        return RankVitals(
            rank=number,
            address=self._ranks[number].addresses[0],
            node=vitals.node,
            pid=vitals.pid,
            memory_bytes=vitals.total_bytes,
            state=state,
        )

    def end(self, reason: str) -> None:
        for rank in self._in_order:
            if not rank.ended.done():
                rank.end(reason)

    async def wait_until_loaded(self, report: ReportLoading) -> None:
        """Report rank 0's progress until all have loaded. Raise LoadFailed."""
        await _all(self._load(number, report) for number in self._ranks)
        self._watch = asyncio.create_task(self._end_together(), name=f"ranks of {self.name}")

    async def _load(self, number: int, report: ReportLoading) -> None:
        def note(progress: Loading, by: Supervised | None = None) -> None:
            self._phases[number] = progress.phase
            if number == 0:
                report(progress, by and self)

        await self._ranks[number].wait_until_loaded(note)

    async def _end_together(self) -> None:
        """End all ranks once one has ended."""
        endings = [rank.ended for rank in self._in_order]
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        number = next(number for number, ending in enumerate(endings) if ending.done())
        cause = endings[number].result()
        self.end(f"lost rank {number} ({cause}) and was ended")

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for rank in self._in_order[:1]:  # the others do not wait for it in the middle of a step, but end with it
            await rank.close()
        await asyncio.gather(*(rank.close() for rank in self._in_order[1:]))
        await self._reservation.aclose()


def _overdue(sign_at: float) -> bool:
    return time.monotonic() - sign_at > SIGN_SECONDS
