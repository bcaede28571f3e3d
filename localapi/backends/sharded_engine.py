"""One model over several workers, as one engine.

Each worker is a *rank* and holds a part of the model. Rank 0 has the requests and tells the others what to do; they are
watched here, and all ranks start and end together, because none is of use without the others.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from localapi.backends.engine import RankVitals, ReportLoading, Supervised, Vitals
from localapi.backends.worker_engine import WorkerEngine
from localapi.errors import OutOfResources
from localapi.system.os_errors import advise
from localapi.worker.protocol import AWAITING_RANKS, Event, Loaded, Loading, Rank, Request

SIGN_SECONDS: Final = 15
"""Time after which a rank that follows owes a sign of life. It sends one every 5 s, and waits for rank 0's before."""


@dataclass(frozen=True)
class RankPlace:
    """Where one rank runs."""

    address: str
    """Where it listens for the other ranks: "127.0.0.1:4000". The port is free."""
    open: Callable[[str], Awaitable[WorkerEngine]]
    """Starts a worker of this name that has nothing to load yet."""


@dataclass(frozen=True)
class Places:
    """Where all ranks of one model run."""

    ranks: Sequence[RankPlace]
    plans: str
    """Where rank 0 also listens, for the connections over which it sends its plans."""


def places_here(count: int, opening: Callable[[str], Awaitable[WorkerEngine]]) -> Places:
    """Return places on this machine, which only this machine can reach. Raise OutOfResources.

    `opening`: starts each rank's worker.
    """
    sockets: list[socket.socket] = []
    try:
        sockets.extend(socket.create_server(("127.0.0.1", 0)) for _ in range(count + 1))
        plans, *addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    except OSError as error:
        raise OutOfResources(f"No port for a rank is free: {advise(error)}.", number=error.errno) from error
    finally:
        for each in sockets:
            each.close()
    return Places([RankPlace(address, opening) for address in addresses], plans)


async def start_ranks(
    name: str, engine: str, options: Mapping[str, Any], places: Places, *, report: ReportLoading
) -> ShardedEngine:
    """Start a worker at each place, load a part of the model in each, and return the engine.

    After any failure, cancellation included, all workers have ended when this returns. Raises LoadFailed.
    """
    addresses, secret = [place.address for place in places.ranks], secrets.token_bytes(32)
    ranks: list[WorkerEngine] = []
    sharded = ShardedEngine(name, ranks, addresses)
    try:
        for number, place in enumerate(places.ranks):
            rank = await place.open(f"{name} rank {number}")
            ranks.append(rank)
            rank.load(engine, options, Rank(number, addresses, places.plans, secret))
        await sharded.wait_until_loaded(report)
    except BaseException:
        await sharded.close()
        raise
    return sharded


class ShardedEngine:
    """Engine in several workers; see `backends.engine.Engine`."""

    def __init__(self, name: str, ranks: Sequence[WorkerEngine], addresses: Sequence[str]) -> None:
        """`ranks`: may grow until `wait_until_loaded`."""
        self.name = name
        self._ranks = ranks
        self._addresses = addresses
        self._phases: dict[int, str] = {}
        """What each rank does while it loads."""
        self._watch: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> Loaded:
        return self._ranks[0].loaded

    @property
    def ended(self) -> asyncio.Future[str]:
        # Rank 0's, because it is done in the moment in which its requests fail, before they can be tried again.
        return self._ranks[0].ended

    def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        return self._ranks[0].answer(request)

    def vitals(self) -> Vitals:
        each = [rank.vitals() for rank in self._ranks]
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
        """Return the processor time of all ranks; while they load, of the one that computes least."""
        times = [vitals.cpu_seconds or 0.0 for vitals in each]
        if self._watch is not None:
            return sum(times)
        # A rank that stops does not come any further, and the others, which compute while they wait, overtake it.
        working = [spent for number, spent in enumerate(times) if self._phases.get(number) != AWAITING_RANKS]
        return min(working or times)

    def _silent_since(self, each: Sequence[Vitals]) -> float | None:
        """Return since when a rank owes a sign. One that hangs keeps all others waiting, silently, too."""
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
            address=self._addresses[number],
            pid=vitals.pid,
            memory_bytes=vitals.total_bytes,
            state=state,
        )

    def end(self, reason: str) -> None:
        for rank in self._ranks:
            if not rank.ended.done():
                rank.end(reason)

    async def wait_until_loaded(self, report: ReportLoading) -> None:
        """Report rank 0's progress until all have loaded. Raise LoadFailed."""
        loads = [asyncio.create_task(self._load(number, report)) for number in range(len(self._ranks))]
        try:
            await asyncio.gather(*loads)
        finally:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
        self._watch = asyncio.create_task(self._end_together(), name=f"ranks of {self.name}")

    async def _load(self, number: int, report: ReportLoading) -> None:
        def note(progress: Loading, by: Supervised | None = None) -> None:
            self._phases[number] = progress.phase
            if number == 0:
                report(progress, by and self)

        await self._ranks[number].wait_until_loaded(note)

    async def _end_together(self) -> None:
        """End all ranks once one has ended."""
        endings = [rank.ended for rank in self._ranks]
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        number = next(number for number, ending in enumerate(endings) if ending.done())
        cause = endings[number].result()
        self.end(f"lost rank {number} ({cause}) and was ended")

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for rank in self._ranks[:1]:  # the others do not wait for it in the middle of a step, and end with it
            await rank.close()
        await asyncio.gather(*(rank.close() for rank in self._ranks[1:]))


def _overdue(sign_at: float) -> bool:
    return time.monotonic() - sign_at > SIGN_SECONDS
