"""Choose the models to evict for a load: pure functions over the models in memory. `memory` carries the choice out."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Phase(Enum):
    """Phase of an instance in memory."""

    LOADING = auto()
    READY = auto()
    ENDING = auto()
    """Its memory will be free in a moment."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """Memory that one instance uses, or has reserved."""

    name: str
    """Name of the entry. An instance and its replacement have the same."""
    size: int
    """Bytes."""
    phase: Phase = Phase.READY
    leases: int = 0
    last_used: float = 0.0
    used: bool = True
    """True if a request has used the loaded model."""
    protected: bool = False
    """True if it may not be evicted: it is pinned, or about to replace another instance."""
    retired: bool = False
    """True if it ends with its last lease."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Memory that a load needs."""

    name: str
    least: int
    """Minimum bytes for the load."""
    most: int
    """Bytes that it should get if there is room."""
    is_next: bool = True
    """True if no other load is queued before it."""
    speculative: bool = False
    """True if no request waits for it."""
    impatient: bool = False
    """True if it has waited so long that busy models must stop accepting requests."""


@dataclass(frozen=True)
class Reserve:
    """There is room."""

    size: int


@dataclass(frozen=True)
class Evict(Generic[Key]):
    """There will be room once these idle instances have ended."""

    victims: tuple[Key, ...]


@dataclass(frozen=True)
class Wait(Generic[Key]):
    """There is no room yet."""

    pause: tuple[Key, ...] = ()
    """Instances that must accept no new leases, so that they become idle."""


class Refusal(Enum):
    """Reason for refusing a load."""

    NEVER_FITS = auto()
    """It does not fit into the budget besides the models that must stay."""
    NOT_WORTH_IT = auto()
    """No request waits for it, and it could only replace models like it, or busy ones."""


@dataclass(frozen=True)
class Refuse(Generic[Key]):
    """There is no room, and waiting does not help."""

    reason: Refusal
    size: int
    """Bytes that it needs."""
    free: int
    """Bytes that would be available."""
    beside: tuple[Key, ...]
    """Instances that use the rest."""


def plan_room(
    holdings: Mapping[Key, Holding], need: Need, budget: int
) -> Reserve | Evict[Key] | Wait[Key] | Refuse[Key]:
    """Return what to do to make room for a load within the budget."""
    # While an instance loads beside the one that it replaces, the old one must be able to answer.
    staying = [key for key, each in holdings.items() if each.protected or (each.name == need.name and not each.retired)]
    available = budget - _total(holdings, staying)
    if need.least > available:
        return Refuse(Refusal.NEVER_FITS, need.least, available, tuple(staying))
    size = min(need.most, available)
    if not need.is_next:
        return Wait()
    free = budget - _total(holdings, holdings)
    if size <= free:
        return Reserve(size)
    return _plan_evictions(holdings, need, size, free)


def _plan_evictions(
    holdings: Mapping[Key, Holding], need: Need, size: int, free: int
) -> Evict[Key] | Wait[Key] | Refuse[Key]:
    """Return how `size` bytes can be freed for a load if only `free` bytes are available."""
    candidates = [key for key in _evictable(holdings) if holdings[key].name != need.name]
    if need.speculative:
        candidates = [key for key in candidates if holdings[key].used and holdings[key].leases == 0]
        ending = [key for key, each in holdings.items() if each.retired or each.phase is Phase.ENDING]
        attainable = free + _total(holdings, ending) + _total(holdings, candidates)
        if size > attainable:
            return Refuse(Refusal.NOT_WORTH_IT, size, attainable, tuple(holdings))

    missing = size - free - _ending_soon(holdings)
    if missing <= 0:
        return Wait()
    victims = _idle(holdings, candidates, missing)
    if _total(holdings, victims) >= missing:
        return Evict(tuple(victims))
    # Evicting some models would not help as long as it is not enough.
    return Wait(tuple(_first(holdings, candidates, missing))) if need.impatient else Wait()


def plan_shrink(holdings: Mapping[Key, Holding], budget: int) -> tuple[Key, ...]:
    """Return the idle instances to evict because the loaded ones have outgrown the budget."""
    excess = _total(holdings, holdings) - _ending_soon(holdings) - budget
    return tuple(_idle(holdings, _evictable(holdings), excess))


def _evictable(holdings: Mapping[Key, Holding]) -> list[Key]:
    """Return the instances that may be evicted, the least recently used first."""
    found = [k for k, each in holdings.items() if each.phase is Phase.READY and not each.protected and not each.retired]
    return sorted(found, key=lambda key: holdings[key].last_used)


def _idle(holdings: Mapping[Key, Holding], candidates: Iterable[Key], size: int) -> list[Key]:
    """Return as many idle candidates as are needed to free this many bytes, or all of them."""
    return _first(holdings, [key for key in candidates if holdings[key].leases == 0], size)


def _first(holdings: Mapping[Key, Holding], candidates: Iterable[Key], size: int) -> list[Key]:
    chosen: list[Key] = []
    for key in candidates:
        if _total(holdings, chosen) >= size:
            break
        chosen.append(key)
    return chosen


def _ending_soon(holdings: Mapping[Key, Holding]) -> int:
    return _total(holdings, [key for key, each in holdings.items() if each.phase is Phase.ENDING])


def _total(holdings: Mapping[Key, Holding], keys: Iterable[Key]) -> int:
    return sum(holdings[key].size for key in keys)
