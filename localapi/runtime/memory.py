"""Memory of all models: the size of each, loads that wait for room, and evictions.

`eviction` decides, and this module carries it out. It knows sizes, as expected from files and as measured for engines,
but no requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from localapi.backends.options import FILES_FACTOR, EntryOptions
from localapi.errors import LoadFailed, NoRoom, NoRoomAhead
from localapi.manifest import fingerprint
from localapi.runtime.eviction import (
    Evict,
    Holding,
    Need,
    Phase,
    Refusal,
    Refuse,
    Reserve,
    Wait,
    plan_room,
    plan_shrink,
)
from localapi.runtime.gate import Pause
from localapi.runtime.instance import Instance
from localapi.system.byte_sizes import readable
from localapi.system.threads import aside

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 5.0
"""Time for which a load waits for a busy model to become idle. After it, that model accepts no new requests until it is
idle."""
_LOOK_SECONDS: Final = 1.0


@dataclass
class Footprint:
    """Memory of one instance, from before it loads until its engine has ended."""

    expected: int
    """Expected bytes."""
    measured: int = 0
    identity: str = ""
    """Identity of the loaded model, with a mark if it was loaded within a budget."""
    settled: bool = False
    """True if it was measured after loading."""
    growth: int = 0
    """Bytes reserved for a replica that is being loaded."""
    promised: int = 0
    """Bytes reserved for the replicas up to `replicas.min` that are not loading yet."""

    @property
    def bytes(self) -> int:
        """Bytes to count."""
        return self.promised + self.growth + (self.measured if self.settled else max(self.expected, self.measured))


@dataclass
class Known:
    """Memory that instances of one identity have used."""

    loaded: int
    """Bytes right after loading."""
    most: int


class Memory:
    """Memory of all engines together."""

    def __init__(self) -> None:
        self.budget: int | None = None
        """Budget in bytes; None for no budget."""
        self._footprints: dict[Instance, Footprint] = {}
        self._loads: list[Instance] = []
        """Loads that wait for room, in order of arrival."""
        self._paused: set[Instance] = set()
        """Busy instances that accept no new leases, because the next load waits for them."""
        self._known: dict[str, Known] = {}
        self._changed = asyncio.Event()

    @property
    def used(self) -> int:
        """Bytes that are used or reserved."""
        return sum(footprint.bytes for footprint in self._footprints.values())

    @property
    def excess(self) -> str | None:
        """Warning if the pinned models exceed the budget."""
        pinned = {
            each: footprint.bytes for each, footprint in self._footprints.items() if each.pinned and not each.retired
        }
        if self.budget is None or sum(pinned.values()) <= self.budget:
            return None
        names = ", ".join(f"{each.name} {readable(size)}" for each, size in pinned.items())
        return (
            f"pinned models exceed memory_budget ({readable(self.budget)}): {names}. They stay loaded; pin fewer, or "
            f"raise server.memory_budget"
        )

    @property
    def waiting(self) -> list[str]:
        """Models that wait for room, in order."""
        return [instance.name for instance in self._queue]

    @property
    def _queue(self) -> list[Instance]:
        """Loads that wait, in order of arrival, with those for which no request waits behind the others."""
        return sorted(self._loads, key=lambda each: each.is_speculative)

    def of(self, instance: Instance) -> int | None:
        """Return the bytes of one instance; None if nothing of it is in memory."""
        return self._footprints[instance].bytes if instance in self._footprints else None

    def position(self, instance: Instance) -> int | None:
        """Return the position of a load that waits for room, from 1; None if it does not wait."""
        if instance not in self._loads or self.budget is None:
            return None
        return self._queue.index(instance) + 1

    def follow(self, budget: int | None) -> None:
        """Apply another budget, also to waiting loads."""
        self.budget = budget
        self.reconsider()

    async def reserve(self, instance: Instance) -> bool:
        """Wait until there is room for an instance and reserve it. Return True if there is a budget.

        Raise NoRoom if there can be none, and NoRoomAhead if making room is not justified.
        """
        began = time.monotonic()
        self._loads.append(instance)
        try:
            expected = await aside(lambda: expected_bytes(instance.options))
            if expected == 0:
                return self.budget is not None and not instance.options.is_remote
            while True:
                changed = self._changed
                self.note(self._footprints)
                size = self._room_for(instance, expected, impatient=time.monotonic() - began >= PATIENCE_SECONDS)
                if size is not None:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await changed.wait()
            self._footprints[instance] = self._footprint(instance, expected, size)
            return self.budget is not None
        finally:
            if self._queue[0] is instance:  # nothing was paused for the loads behind it
                while self._paused:
                    self._paused.pop().gate.open(Pause.MEMORY)
            self._loads.remove(instance)
            self.reconsider()

    def _room_for(self, instance: Instance, expected: int, *, impatient: bool) -> int | None:
        """Return the bytes that an instance may use; if there is no room yet, start making room. Raise NoRoom."""
        known = self._known_of(instance, expected)
        if self.budget is None:
            return known.loaded
        need = Need(
            name=instance.name,
            least=known.loaded,
            most=known.most,
            is_next=self._queue[0] is instance,
            speculative=instance.is_speculative,
            impatient=impatient,
        )
        holdings = self._holdings()
        plan = plan_room(holdings, replace(need, most=known.most * instance.min_replicas), self.budget)
        if not isinstance(plan, Reserve | Evict):  # the first replica does not wait for room for the others
            plan = plan_room(holdings, need, self.budget)
        match plan:
            case Reserve(size=size):
                return size
            case Evict(victims=victims):
                for each in victims:
                    self._evict(each, f"for {instance.name}")
            case Wait(pause=busy):
                self._pause(busy, instance)
            case Refuse() as refusal:
                raise self._refusal(instance, refusal, self.budget)
        return None

    def _known_of(self, instance: Instance, expected: int) -> Known:
        return self._known.get(self._identity(instance)) or Known(expected, expected)

    def _footprint(self, instance: Instance, expected: int, size: int) -> Footprint:
        """Return the reservation for a load, including its other replicas as far as they fit."""
        each = self._known_of(instance, expected).most
        first = min(size, each)
        return Footprint(first, identity=self._identity(instance), promised=(size - first) // each * each)

    def _holdings(self) -> dict[Instance, Holding]:
        return {instance: _holding(instance, footprint.bytes) for instance, footprint in self._footprints.items()}

    def _evict(self, instance: Instance, needed: str) -> None:
        instance.evict(f"its {readable(self._footprints[instance].bytes)} are needed {needed}")
        instance.gate.open(Pause.MEMORY)

    def _pause(self, busy: Iterable[Instance], waiting: Instance) -> None:
        for each in busy:
            if each not in self._paused:
                log.info(
                    "%s: accepts no new requests until it is idle, because %s waits for memory", each.name, waiting.name
                )
            each.gate.close(Pause.MEMORY)
            self._paused.add(each)

    def _refusal(self, instance: Instance, refusal: Refuse[Instance], budget: int) -> LoadFailed:
        beside = {each: self._footprints[each].bytes for each in refusal.beside}
        names = ", ".join(f"{each.name} {readable(size)}" for each, size in beside.items())
        if refusal.reason is Refusal.NOT_WORTH_IT:
            return NoRoomAhead(
                f"Not preloaded: it needs about {readable(refusal.size)}, and memory_budget "
                f"({readable(budget)}) leaves {readable(max(0, refusal.free))} besides {names}. "
                "Its first request loads it in place of others. Preload or pin fewer models, or raise "
                "server.memory_budget."
            )
        hint = "Raise"
        if any(each.name == instance.name for each in beside):
            hint = "Set swap: cold for it, or raise"
        elif instance.pinned and beside:
            hint = "Pin fewer models, or raise"
        needs = f"{instance.name} needs about {readable(refusal.size)}, memory_budget is {readable(budget)}"
        with_names, unnamed = (
            f"{needs}{f', and {others} must stay' if beside else ''}. {hint} server.memory_budget."
            for others in (names, f"{readable(sum(beside.values()))} of others")
        )
        return NoRoom(with_names, beside=(each.name for each in beside), unnamed=unnamed)

    def free(self, instance: Instance) -> None:
        """Record that the engine of an instance has ended and freed its memory."""
        if self._footprints.pop(instance, None) is not None:
            self.reconsider()

    @property
    def is_bounded(self) -> bool:
        """True if there is a budget."""
        return self.budget is not None

    def reserve_growth(self, instance: Instance, size: int) -> bool:
        """Reserve memory for one more replica of an instance.

        Return False if it is not available, or others wait for it.
        """
        footprint = self._footprints.get(instance)
        promised = 0 if footprint is None else min(footprint.promised, size)
        further = size - promised
        is_here = not instance.options.is_remote
        if is_here and further and self.budget is not None and (self._loads or self.used + further > self.budget):
            return False
        if footprint is not None:
            footprint.promised -= promised
            footprint.growth += size
        return True

    def end_growth(self, instance: Instance, size: int) -> None:
        """Measure an instance that has grown, and drop its reservation."""
        footprint = self._footprints.get(instance)
        if footprint is not None:
            footprint.growth = max(0, footprint.growth - size)
            self.note([instance])
            self.reconsider()

    def reconsider(self) -> None:
        """Let waiting loads check again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def note(self, instances: Iterable[Instance]) -> None:
        """Measure the memory of instances, including those without a reservation."""
        for instance in list(instances):
            taken = instance.supervised.vitals().total_bytes if instance.supervised is not None else None
            if not taken or instance.options.is_remote:
                continue
            footprint = self._footprints.setdefault(instance, Footprint(0, identity=self._identity(instance)))
            footprint.measured = taken
            if instance.engine is not None:
                footprint.settled = True
                if instance.replica_count >= instance.min_replicas:
                    footprint.promised = 0
                each = taken // instance.replica_count  # a load starts with one
                known = self._known.setdefault(footprint.identity, Known(each, each))
                known.most = max(known.most, each)

    def _identity(self, instance: Instance) -> str:
        """Return an identity for measured sizes: without a budget, a model may use more than its files suggest."""
        return f"{fingerprint(instance.identity)} {'bounded' if self.budget is not None else ''}"

    def shrink(self) -> None:
        """Evict idle models if the loaded ones have outgrown the budget."""
        if self.budget is not None and not self._loads:
            for each in plan_shrink(self._holdings(), self.budget):
                self._evict(each, "within memory_budget")


def _holding(instance: Instance, size: int) -> Holding:
    """Return what planning needs to know of an instance."""
    phase = Phase.ENDING
    if instance.is_loading:
        phase = Phase.LOADING
    elif instance.engine is not None:
        phase = Phase.READY
    return Holding(
        name=instance.name,
        size=size,
        phase=phase,
        leases=instance.leases,
        last_used=instance.last_used,
        used=instance.used,
        protected=instance.is_protected,
        retired=instance.retired,
    )


def expected_bytes(options: EntryOptions) -> int:
    """Return the bytes that a worker will use here, as stated or computed from its files; 0 if unknown. Blocks."""
    stated = options.stated_memory()
    if stated is not None:
        return stated
    if options.worker_bytes == 0 or options.is_remote:
        return 0
    files = sum(_size(path) for path in options.weight_files())
    return options.processes * options.worker_bytes + int(FILES_FACTOR * options.growth() * files)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
