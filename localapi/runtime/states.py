"""The states of an instance, and which may follow which.

    Unloaded ──► Loading ──► Ready ──► Draining ──► Unloaded, Failed
       │           │  ▲                  │ ▲
       │           │  └──────────────────┘ │   a load that waits for the old engine's memory
       │           ├───────────────────────┘   a load that is cancelled
       │           └──► Failed ──► Loading, Unloaded
       └──► Closed ◄── Failed

Pure data: what a transition does is `instance`'s business.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from localapi.backends.engine import Engine
from localapi.runtime.load import Load


class FailureReason(Enum):
    """Reason why there is no engine."""

    NO_ROOM = "no room in the memory budget"
    NOT_LOADED = "the load failed"
    WORKER_ENDED = "the worker ended by itself"


@dataclass(frozen=True)
class Unloaded:
    """Nothing is loaded, and there is no error."""

    no_room_to_preload: bool = False
    """True if it should have been loaded ahead of requests, but other models need the memory."""


@dataclass(frozen=True)
class Failed:
    """Nothing is loaded, because of an error."""

    reason: FailureReason
    fault: tuple[object, ...] = ()
    """`LoadFailed.fault` of the failure; equal if the same fault occurs again."""


@dataclass(frozen=True, eq=False)
class Loading:
    """A load is in progress, or queued for memory."""

    load: Load
    otherwise: Unloaded | Failed
    """State to return to if the load is cancelled."""
    after: asyncio.Task[Any] | None = None
    """Task that must end first: it holds the memory that this load needs."""


@dataclass(eq=False)
class Ready:
    """The model is loaded."""

    engine: Engine
    since: float
    """Unix time."""
    used: bool
    """True if a request has used the loaded model."""


@dataclass(frozen=True, eq=False)
class Draining:
    """An engine or a cancelled load is ending. Its memory is not free yet."""

    ending: asyncio.Task[Any]
    then: Unloaded | Failed


@dataclass(frozen=True)
class Closed:
    """The instance has ended for good."""


State = Unloaded | Loading | Ready | Draining | Failed | Closed
StateName = Literal["unloaded", "loading", "ready", "failed", "closed"]

FOLLOWING: Final[dict[type[State], frozenset[type[State]]]] = {
    Unloaded: frozenset({Loading, Closed}),
    Loading: frozenset({Ready, Failed, Unloaded, Draining}),
    Ready: frozenset({Draining}),
    Draining: frozenset({Unloaded, Failed, Loading}),
    Failed: frozenset({Loading, Unloaded, Closed}),
    Closed: frozenset(),
}


class InvalidTransition(RuntimeError):
    """A state cannot follow another one: a bug in the server."""


def check_transition(old: State, new: State) -> None:
    """Raise InvalidTransition if `new` may not follow `old`."""
    if type(new) not in FOLLOWING[type(old)]:
        raise InvalidTransition(f"{type(old).__name__} → {type(new).__name__}")


def name_of(state: State, *, retired: bool, backing_off: bool) -> StateName:
    """Return the name of a state in `/status`. `backing_off` is true during the pause after several failures."""
    match state:
        case Draining(then=then):
            return name_of(then, retired=retired, backing_off=backing_off)
        case Loading():
            return "loading"
        case Ready():
            return "ready"
        case Unloaded() | Failed() if not retired:
            # After a worker has ended by itself, nobody has to act: the next request loads the model again.
            failed = isinstance(state, Failed) and state.reason is not FailureReason.WORKER_ENDED
            return "failed" if failed or backing_off else "unloaded"
        case _:
            return "closed"
