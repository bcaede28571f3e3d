"""Which models are in memory at the same time: loads that wait for room, and idle models that make it.

Knows sizes, as they are expected of files and as they are measured from outside. Refuses to know requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.backends.options import EntryOptions
from localapi.errors import NoRoom, NoRoomAhead
from localapi.manifest import fingerprint
from localapi.runtime.instance import Instance, Pause
from localapi.system.byte_sizes import readable
from localapi.system.threads import aside

log = logging.getLogger(__name__)

FILES_FACTOR: Final = 1.2
"""What a loaded model takes for each byte of its weights: these, and what computing with them needs."""
HOLD_AFTER_SECONDS: Final = 5.0
"""How long a load waits for a busy model to become idle by itself. Then that one takes no new requests until it is."""
_LOOK_SECONDS: Final = 1.0


@dataclass
class Holding:
    """The memory of one instance, from before it loads until its worker has ended."""

    need: int
    """Bytes that were expected."""
    measured: int = 0
    identity: str = ""
    """What was loaded, and whether within a bound."""
    settled: bool = False
    """Whether it was measured after it had loaded."""

    @property
    def bytes(self) -> int:
        """What to reckon with."""
        return self.measured if self.settled else max(self.need, self.measured)


@dataclass
class Known:
    """What instances of one identity took."""

    loaded: int
    """Right after they had loaded."""
    most: int


class Memory:
    """Of all workers together."""

    def __init__(self) -> None:
        self.budget: int | None = None
        """Bytes; None: no bound."""
        self._holdings: dict[Instance, Holding] = {}
        self._queue: list[Instance] = []
        self._held: set[Instance] = set()
        self._known: dict[str, Known] = {}
        self._changed = asyncio.Event()

    @property
    def used(self) -> int:
        """Bytes that are taken or promised."""
        return sum(holding.bytes for holding in self._holdings.values())

    @property
    def excess(self) -> str | None:
        """What whoever runs the server should know of models that are loaded and stay; None where they fit."""
        pinned = {each: holding.bytes for each, holding in self._holdings.items() if each.pinned and not each.retired}
        if self.budget is None or sum(pinned.values()) <= self.budget:
            return None
        names = ", ".join(f"{each.name} {readable(size)}" for each, size in pinned.items())
        return (
            f"pinned models take more than memory_budget, {readable(self.budget)}: {names}. They stay; pin fewer, or "
            "raise server.memory_budget"
        )

    @property
    def waiting(self) -> list[str]:
        """Models that wait for room, in order."""
        return [instance.name for instance in self._in_order]

    def of(self, instance: Instance) -> int | None:
        """Bytes of one instance; None where it has nothing in memory."""
        return self._holdings[instance].bytes if instance in self._holdings else None

    @property
    def _in_order(self) -> list[Instance]:
        """Those that wait for room: as they came, and what nobody waits for behind the others."""
        return sorted(self._queue, key=lambda each: each.is_speculative)

    def position(self, instance: Instance) -> int | None:
        """Return a load's position among those that wait for memory, from 1; None if it does not wait."""
        if instance not in self._queue or self.budget is None:
            return None
        return self._in_order.index(instance) + 1

    def follow(self, budget: int | None) -> None:
        """Another budget, also for those who wait."""
        self.budget = budget
        self.reconsider()

    async def reserve(self, instance: Instance) -> bool:
        """Wait until there is room for an instance, and take it; whether that has a bound.

        Raises NoRoom where there can be none.
        """
        began = time.monotonic()
        self._queue.append(instance)
        try:
            expected = await aside(lambda: expected_bytes(instance.options))
            if expected == 0:
                return self.budget is not None
            while True:
                changed = self._changed
                self.note(self._holdings)
                identity = self._identity(instance)
                known = self._known.get(identity) or Known(expected, expected)
                if self.budget is None:
                    need = known.loaded
                    break
                need = self._need(instance, known, self.budget)
                if self._in_order[0] is instance:
                    if self.used + need <= self.budget:
                        break
                    if instance.is_speculative:
                        self._refuse_ahead(instance, need, self.budget)
                    self._make_room(instance, need, hold=time.monotonic() - began >= HOLD_AFTER_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await changed.wait()
            self._holdings[instance] = Holding(need, identity=identity)
            return self.budget is not None
        finally:
            if self._in_order[0] is instance:  # who left from behind it held nobody
                self._release()
            self._queue.remove(instance)
            self.reconsider()

    def free(self, instance: Instance) -> None:
        """Its worker has ended, or was never started."""
        if self._holdings.pop(instance, None) is not None:
            self.reconsider()

    def reconsider(self) -> None:
        """Have those who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def note(self, instances: Iterable[Instance]) -> None:
        """Measure what instances take, also one that nothing was expected of."""
        for instance in list(instances):
            taken = instance.supervised.vitals().total_bytes if instance.supervised is not None else None
            if not taken:
                continue
            holding = self._holdings.setdefault(instance, Holding(0, identity=self._identity(instance)))
            holding.measured = taken
            if instance.state == "ready":
                holding.settled = True
                known = self._known.setdefault(holding.identity, Known(holding.measured, holding.measured))
                known.most = max(known.most, holding.measured)

    def _identity(self, instance: Instance) -> str:
        """What decides how much it takes: without a bound it may take more than its files."""
        return f"{fingerprint(instance.identity)} {'bounded' if self.budget is not None else ''}"

    def shrink(self) -> None:
        """End idle models where those that are loaded have grown over the budget."""
        if self.budget is not None and not self._queue:
            self._evict(self.used - self._leaving() - self.budget, self._evictable(), "within memory_budget")

    def _need(self, instance: Instance, known: Known, budget: int) -> int:
        """Bytes to have free: what it took at most, if there can be as much. Raises NoRoom."""
        fixed = {
            each: holding.bytes
            for each, holding in self._holdings.items()
            if each.is_protected
            or (each.name == instance.name and not each.retired)  # a warm swap's old one answers on
        }
        room = budget - sum(fixed.values())
        if known.loaded <= room:
            return min(known.most, room)
        beside = ", ".join(f"{each.name} {readable(size)}" for each, size in fixed.items())
        unnamed = f"{readable(sum(fixed.values()))} of others"
        hint = " Pin fewer models, or raise" if instance.pinned and fixed else " Raise"
        if any(each.name == instance.name for each in fixed):
            hint = " Say swap: cold for it, or raise"
        needs = f"{instance.name} needs about {readable(known.loaded)}, memory_budget is {readable(budget)}"
        with_names, without = (
            f"{needs}{f', and {told} must stay' if fixed else ''}.{hint} server.memory_budget."
            for told in (beside, unnamed)
        )
        raise NoRoom(with_names, beside=(each.name for each in fixed), unnamed=without)

    def _refuse_ahead(self, instance: Instance, need: int, budget: int) -> None:
        """Raises NoRoomAhead where a load that nobody waits for could only take the place of one like it."""
        coming = sum(h.bytes for each, h in self._holdings.items() if each.retired)
        coming += self._leaving() + sum(self._holdings[each].bytes for each in self._in_its_way(instance))
        free = budget - self.used + coming
        if need <= free:
            return
        held = ", ".join(f"{each.name} {readable(holding.bytes)}" for each, holding in self._holdings.items())
        raise NoRoomAhead(
            f"Not loaded ahead of requests: it needs about {readable(need)}, and memory_budget ({readable(budget)}) "
            f"leaves {readable(max(0, free))} beside {held}. Its first request loads it, in the place of others. "
            "Preload or pin fewer models, or raise server.memory_budget."
        )

    def _in_its_way(self, instance: Instance) -> list[Instance]:
        """Whose place a load may take. One that nobody waits for: of those that were used, and are not now."""
        others = self._evictable(instance.name)
        return [each for each in others if each.used and each.leases == 0] if instance.is_speculative else others

    def _evictable(self, beside: str = "") -> list[Instance]:
        """Loaded instances that may be ended for another one, the one first that was used least lately."""
        found = [
            each for each in self._holdings if each.engine is not None and not each.is_protected and not each.retired
        ]
        return sorted((each for each in found if each.name != beside), key=lambda each: each.last_used)

    def _leaving(self) -> int:
        """Bytes of those that end already."""
        return sum(h.bytes for each, h in self._holdings.items() if each.engine is None and not each.is_loading)

    def _make_room(self, instance: Instance, need: int, *, hold: bool) -> None:
        """End idle instances if that is enough; otherwise, with `hold`, keep busy ones from staying busy for ever."""
        assert self.budget is not None  # noqa: S101  # nobody waits without one
        missing = self.used + need - self.budget - self._leaving()
        candidates = self._in_its_way(instance)
        missing -= self._evict(missing, candidates, f"for {instance.name}", all_or_nothing=True)
        if missing <= 0 or not hold:
            return
        for each in candidates:
            if missing <= 0:
                return
            if each not in self._held:
                log.info("%s: takes no new requests until it is idle: %s waits for memory", each.name, instance.name)
            each.pause(Pause.MEMORY)
            self._held.add(each)
            missing -= self._holdings[each].bytes

    def _evict(self, missing: int, candidates: Iterable[Instance], needed: str, *, all_or_nothing: bool = False) -> int:
        """End idle ones in this order, until so many bytes come free; how many do. `needed` says where, for people."""
        chosen: dict[Instance, int] = {}
        for each in candidates:
            if sum(chosen.values()) >= missing:
                break
            if each.leases == 0:
                chosen[each] = self._holdings[each].bytes
        freed = sum(chosen.values())
        if all_or_nothing and freed < missing:
            return 0
        for each, size in chosen.items():
            each.evict(f"its {readable(size)} are needed {needed}")
            each.resume(Pause.MEMORY)
        return freed

    def _release(self) -> None:
        while self._held:
            self._held.pop().resume(Pause.MEMORY)


def expected_bytes(options: EntryOptions) -> int:
    """What a worker will take, by its files; 0 where there is no worker. Blocks."""
    if options.worker_bytes == 0:
        return 0
    files = sum(_size(path) for path in options.weight_files())
    return options.worker_bytes + int(FILES_FACTOR * options.growth() * files)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
