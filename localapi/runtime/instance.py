"""One entry at one identity, as a state machine: when its model is loaded, and when it is unloaded.

It knows leases, and how long an unused model stays loaded, but neither names, manifests nor the content of requests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from localapi.backends.engine import Engine, ReportLoading, Supervised, Vitals
from localapi.backends.options import DEFAULT_STALL_SECONDS, FOREVER, EntryOptions, Identity, ReplicaLimits
from localapi.errors import LoadFailed, ModelUnavailable, NoRoom, NoRoomAhead
from localapi.manifest import Entry
from localapi.runtime.backoff import FIRST_PAUSE_SECONDS, Backoff
from localapi.runtime.gate import Gate, Pause
from localapi.runtime.load import Load
from localapi.runtime.replicas import Replicas
from localapi.runtime.states import (
    Closed,
    Draining,
    Failed,
    FailureReason,
    InvalidTransition,
    Loading,
    Ready,
    State,
    StateName,
    Unloaded,
    check_transition,
    name_of,
)
from localapi.system.in_flight import InFlight
from localapi.system.timer import Timer
from localapi.worker import protocol

if TYPE_CHECKING:
    from localapi.runtime.memory import Memory

log = logging.getLogger(__name__)

RELOAD_SECONDS: Final = 1.0
"""Pause before a pinned model whose worker has ended is loaded again."""


class Instance:
    """One entry at one identity. It outlives its manifest while it is leased."""

    def __init__(self, name: str, options: EntryOptions, *, since_revision: int, memory: Memory) -> None:
        self.name = name
        self.options = options
        self.identity: Identity = options.identity()
        self.keep_alive = FOREVER
        """Seconds from the end of the last lease to unloading."""
        self.pinned = False
        self.stall_seconds: float | None = DEFAULT_STALL_SECONDS
        """Maximum seconds without progress for an engine with work."""
        self.backoff = Backoff()
        self.since_revision = since_revision
        """First revision with this instance; 0 if there is none yet, because it is to replace another instance."""
        self.retired = False
        """True if no current revision has it any more."""
        self.loads = 0
        self.worker_deaths = 0
        self.restarts = 0
        """Number of loads after a worker had ended by itself or had been ended."""
        self.last_error: str | None = None
        self.last_used = time.monotonic()
        self.loaded: protocol.Loaded | None = None
        """Facts that the model reported when it was last loaded."""
        self.longest_kept = FOREVER
        """Maximum keep_alive that requests may set, in seconds."""
        self._kept_for: float | None = None
        """`keep_alive` of the last request, if it had one."""
        self._state: State = Unloaded()
        self._memory = memory
        self._leases = InFlight()
        self._waiters = 0
        self._deaths_before = 0
        """`worker_deaths` at the last load."""
        self._replica_limits = options.replica_limits
        self.gate = Gate()
        """Gate at which new leases wait during a pause."""
        self._idle_timer = Timer(self._on_idle)
        self._reload_timer = Timer(self._on_reload)

    # What others see

    @property
    def state(self) -> StateName:
        """State as `/status` names it."""
        return name_of(self._state, retired=self.retired, backing_off=self.backoff.seconds_left > 0)

    @property
    def engine(self) -> Engine | None:
        """Loaded engine."""
        return self._state.engine if isinstance(self._state, Ready) else None

    @property
    def supervised(self) -> Supervised | None:
        """Engine, or the process that loads its model; None if nothing can be measured or ended."""
        match self._state:
            case Ready(engine=engine):
                return engine
            case Loading(load=load):
                return load.by
        return None

    @property
    def all_supervised(self) -> list[Supervised]:
        """Everything that can be measured and ended separately: each replica."""
        if isinstance(self.engine, Replicas):
            return self.engine.supervised
        return [self.supervised] if self.supervised is not None else []

    @property
    def replica_count(self) -> int:
        """Number of loaded engines, at least 1."""
        return max(1, len(self.engine.replicas)) if isinstance(self.engine, Replicas) else 1

    @property
    def min_replicas(self) -> int:
        """Minimum number of engines that should be loaded."""
        return 1 if self._replica_limits is None else self._replica_limits.min

    @property
    def vitals(self) -> Vitals | None:
        """Vitals of the loaded engine."""
        return self.engine.vitals() if self.engine is not None else None

    @property
    def max_batch(self) -> int | None:
        """Number of requests that the engine answers concurrently; None if it never queues any."""
        return self.engine.vitals().max_batch if self.engine is not None else self.options.batch_limit

    @property
    def queued(self) -> int:
        """Number of requests queued inside the engine."""
        return self.engine.vitals().queued if self.engine is not None else 0

    @property
    def progress(self) -> protocol.Loading | None:
        """Progress of the load, if one is in progress."""
        return self._state.load.progress if isinstance(self._state, Loading) else None

    @property
    def ready_since(self) -> float | None:
        """Unix time at which the model was loaded."""
        return self._state.since if isinstance(self._state, Ready) else None

    @property
    def is_loading(self) -> bool:
        """True if a load is in progress, or queued for memory."""
        return isinstance(self._state, Loading)

    @property
    def used(self) -> bool:
        """True if a request has used the loaded model."""
        return isinstance(self._state, Ready) and self._state.used

    @property
    def lacks_memory(self) -> bool:
        """True if it is not loaded because the memory budget leaves no room for it."""
        match self._state:
            case Unloaded(no_room_to_preload=no_room):
                return no_room
            case Failed(reason=reason):
                return reason is FailureReason.NO_ROOM
        return False

    @property
    def will_reload(self) -> bool:
        """True if it will be loaded again without a request."""
        return self.pinned and self._reload_timer.runs

    @property
    def is_speculative(self) -> bool:
        """True if it is loaded for future requests, and no request waits for it."""
        return self._waiters == 0 and not self.pinned and self.since_revision != 0

    @property
    def is_protected(self) -> bool:
        """True if it may not be evicted: it is pinned, or about to replace another instance."""
        return not self.retired and (self.pinned or self.since_revision == 0)

    @property
    def leases(self) -> int:
        """Number of leases held."""
        return self._leases.count

    # Leases

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Engine]:
        """Give one request the right to use this instance, after loading it. Raise LoadFailed and ModelUnavailable."""
        self._idle_timer.stop()
        self._kept_for = None
        if isinstance(self._state, Ready):
            self._state.used = True
        try:
            with self._leases.one():
                yield await self.load()
        finally:
            self.last_used = time.monotonic()
            if self.leases == 0:
                self._start_idle_timer()
                self._memory.reconsider()

    async def idle(self) -> None:
        """Wait until no lease is held."""
        await self._leases.none()

    def keep_for(self, seconds: float) -> None:
        """Keep the model for this long after its last lease, until another request changes that.

        A pin takes precedence.
        """
        self._kept_for = seconds
        self._start_idle_timer()

    async def release(self) -> None:
        """Unload the model, after its last lease if there is one. A pinned model stays loaded."""
        self.keep_for(0)
        if self.leases == 0 and not self.pinned:
            await self.unload()

    @property
    def expires_in(self) -> float:
        """Seconds until an idle model is unloaded; infinity if it is in use, or is never unloaded."""
        if self.leases or self._stays_for == FOREVER:
            return FOREVER
        return max(0.0, self.last_used + self._stays_for - time.monotonic())

    @property
    def _stays_for(self) -> float:
        return self.keep_alive if self._kept_for is None or self.pinned else min(self._kept_for, self.longest_kept)

    def retire(self) -> None:
        """Send waiting requests to the instance that replaces this one."""
        self.retired = True
        self.gate.open_for_good()

    # Settings

    def follow(self, entry: Entry, *, by_hand: bool = False) -> None:
        """Apply settings in place. If `by_hand`, it is pinned regardless of the manifest."""
        self.pinned = entry.options.pin or by_hand
        self.stall_seconds = entry.options.stall_seconds
        self._follow_replicas(entry.options.replica_limits)
        keep_alive = FOREVER if self.pinned else entry.keep_alive
        if (keep_alive, entry.max_keep_alive) != (self.keep_alive, self.longest_kept):
            self.keep_alive, self.longest_kept = keep_alive, entry.max_keep_alive
            self._start_idle_timer()

    # Loading

    async def load(self) -> Engine:
        """Return the engine, loaded once however many requests wait for it.

        The load continues if all who asked for it leave, because the next request will need it. Raise LoadFailed, and
        ModelUnavailable during the pause after failures.
        """
        if self.engine is not None and self.engine.ended.done():
            self._on_engine_ended(self.engine)
        while isinstance(self._state, Draining):
            await asyncio.wait([self._state.ending])
        match self._state:
            case Ready(engine=engine):
                return engine
            case Closed():
                raise ModelUnavailable(f"{self.name} has been replaced or removed. Send the request again.")
            case Unloaded() | Failed():
                self._refuse_during_pause()
        self._waiters += 1
        load = self._begin_load()
        try:
            return await asyncio.shield(load.task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise ModelUnavailable(
                f"{self.name} was unloaded while it was being loaded. Send the request again."
            ) from None
        finally:
            self._waiters -= 1
            if self._waiters == 0 and not load.has_room and not load.detached and self._is_current(load):
                self._cancel_load(load)  # it is queued for memory, and nobody waits for it

    def begin_loading(self) -> None:
        """Load the model if it is not loaded, whether or not a request waits for it."""
        if not isinstance(self._state, Ready):
            self._begin_load().detached = True

    def _begin_load(self) -> Load:
        """Return the load in progress, or start a new one."""
        state = self._state
        if isinstance(state, Loading):
            return state.load
        after = state.ending if isinstance(state, Draining) else None
        otherwise = state.then if isinstance(state, Draining) else state
        if not isinstance(otherwise, Unloaded | Failed):
            raise InvalidTransition(f"{self.name}: {type(state).__name__} → Loading")
        load = Load(self.name, self.options)
        self._become(Loading(load, otherwise, after), "load started", level=logging.DEBUG)
        load.task = asyncio.create_task(self._load(load, after), name=f"load {self.name}")
        load.task.add_done_callback(_retrieve)
        return load

    async def _load(self, load: Load, after: asyncio.Task[object] | None) -> Engine:
        started = time.monotonic()
        try:
            if after is not None:
                await asyncio.wait([after])
            bounded = await self._memory.reserve(self)
            load.has_room = True
            engine = await load.start(bounded=bounded)
        except BaseException as error:
            if load.has_room:
                self._memory.free(self)
            if not isinstance(error, Exception):
                if isinstance(self._state, Loading) and self._is_current(load):
                    self._become(self._state.otherwise, "load cancelled", level=logging.DEBUG)
                raise
            failure = load.failure(error)
            if self._is_current(load):
                self._on_load_failed(failure)
            raise failure from error
        if not self._is_current(load):  # it was cancelled, and the backend did not notice
            await self._close(engine)
            raise asyncio.CancelledError
        self._on_loaded(engine, seconds=time.monotonic() - started)
        return engine

    def _is_current(self, load: Load) -> bool:
        return isinstance(self._state, Loading) and self._state.load is load

    def _on_loaded(self, engine: Engine, *, seconds: float) -> None:
        self.loads += 1
        self._count_restart()
        self.last_error = None
        self.last_used = time.monotonic()
        self.loaded = engine.loaded
        self._reload_timer.stop()
        engine = self._replicated(engine)
        self._become(Ready(engine, since=time.time(), used=self.leases > 0), "loaded in %.1f s", seconds)
        for note in engine.loaded.notes:
            log.info("%s: %s", self.name, note)
        engine.ended.add_done_callback(lambda _: self._on_engine_ended(engine))
        if self.leases == 0:
            self._start_idle_timer()
            self._memory.reconsider()

    def _count_restart(self) -> None:
        if self.worker_deaths > self._deaths_before:
            self.restarts += 1
        self._deaths_before = self.worker_deaths

    # Replicas

    def _replicated(self, engine: Engine) -> Engine:
        """Return the engine, as the first of several if the entry has replicas."""
        limits = self._replica_limits
        if limits is None or isinstance(engine, Replicas):
            return engine
        return Replicas(self.name, engine, limits, start=self._start_replica, owner=self)

    def _follow_replicas(self, limits: ReplicaLimits | None) -> None:
        self._replica_limits = limits
        if not isinstance(self._state, Ready):
            return
        if isinstance(self._state.engine, Replicas):
            self._state.engine.follow(limits or ReplicaLimits())
        elif limits is not None:
            engine = self._state.engine = self._replicated(self._state.engine)
            engine.ended.add_done_callback(lambda _: self._on_engine_ended(engine))

    async def _start_replica(self, name: str, report: ReportLoading) -> Engine:
        options = self.options.in_bounds() if self._memory.is_bounded else self.options
        return await options.start(name, report)

    def reserve_growth(self, size: int) -> bool:
        """Reserve memory for one more replica, without evicting anything. Return False if there is not enough."""
        return self._memory.reserve_growth(self, size)

    def end_growth(self, size: int, *, loaded: bool) -> None:
        """Record that a replica was loaded, or did not load."""
        self._memory.end_growth(self, size)
        if loaded:
            self._count_restart()
            self.last_error = None

    def note_replica_ended(self, reason: str) -> None:
        """Record that one of several replicas has ended by itself; the others continue."""
        self.worker_deaths += 1
        self.last_error = reason

    def _on_load_failed(self, failure: LoadFailed) -> None:
        assert isinstance(self._state, Loading)  # noqa: S101  # only a load fails
        before = self._state.otherwise
        self.last_error = failure.message
        if isinstance(failure, NoRoomAhead):
            self._become(Unloaded(no_room_to_preload=True), "%s", failure.message, level=logging.WARNING)
            return
        reason = FailureReason.NO_ROOM if isinstance(failure, NoRoom) else FailureReason.NOT_LOADED
        failed = Failed(reason, failure.fault)
        # Failures found without starting a process may be retried every few seconds, and are worth one line.
        repeated = not failure.counts and before == failed
        level = logging.DEBUG if repeated else logging.ERROR
        self._become(failed, "not loaded: %s", failure.message, level=level)
        self._count_failure(counts=failure.counts)

    def _on_engine_ended(self, engine: Engine) -> None:
        """Record that an engine has ended unexpectedly."""
        if self.engine is not engine or engine.ended.cancelled():
            return
        self.worker_deaths += 1
        self.last_error = engine.ended.result()
        failed = Failed(FailureReason.WORKER_ENDED)
        self._end_engine(failed, "%s; the next request loads it again", self.last_error, level=logging.ERROR)
        self._count_failure(counts=True)

    def _count_failure(self, *, counts: bool) -> None:
        if counts:
            self.backoff.failed()
        pause_seconds = self.backoff.seconds_left
        if pause_seconds:
            log.error(
                "%s: failed %d times in a row; not loading it again for %.0f s",
                self.name, self.backoff.failures, pause_seconds,
            )  # fmt: skip
        if self.pinned and not self.retired:
            self._reload_timer.start(max(pause_seconds, RELOAD_SECONDS if counts else FIRST_PAUSE_SECONDS))

    def _on_reload(self) -> None:
        """Load a pinned model again, without waiting for a request."""
        if self.pinned and not self.retired:
            self.begin_loading()

    def _refuse_during_pause(self) -> None:
        if seconds_left := self.backoff.seconds_left:
            raise ModelUnavailable(
                f"{self.name} failed {self.backoff.failures} times in a row and will not be loaded for "
                f"{seconds_left:.0f} s: {self.last_error} (POST /admin/models/{self.name}/load retries at once.)",
                retry_after_seconds=seconds_left,
            )

    def forget_lack_of_memory(self) -> None:
        """Record that there may be room now: the next load will show it."""
        if isinstance(self._state, Failed) and self._state.reason is FailureReason.NO_ROOM:
            self.last_error = None
            self._become(Unloaded(), "may fit into the memory budget now", level=logging.DEBUG)

    # Unloading

    async def unload(self) -> None:
        """Unload the engine, even if it is leased, and free its memory. The next lease loads the model again."""
        self._reload_timer.stop()
        if isinstance(self._state, Loading):
            load = self._state.load
            self._cancel_load(load)
            await asyncio.wait([load.task])
        if isinstance(self._state, Ready):
            self._end_engine(Unloaded(), "unloaded", level=logging.DEBUG)
        while isinstance(self._state, Draining):
            await asyncio.wait([self._state.ending])

    async def unload_when_idle(self, seconds: float) -> bool:
        """Unload as soon as no lease is held, while new leases wait.

        Return False if that takes longer than `seconds`.
        """
        self.gate.close(Pause.UNLOAD)
        try:
            async with asyncio.timeout(seconds):
                await self.idle()
            await self.unload()
        except TimeoutError:
            return False
        finally:
            self.gate.open(Pause.UNLOAD)
        return True

    def evict(self, reason: str) -> None:
        """Evict an idle engine for another model. `reason` is for people."""
        then = Unloaded()
        if not self.used:
            self.last_error = f"Unloaded before a request came: {reason}. Its next request loads it again."
            then = Unloaded(no_room_to_preload=True)
        self._end_engine(then, "unloaded: %s", reason)

    async def close(self, *, level: int = logging.DEBUG) -> None:
        """End for good, even if it is leased. `level` is that of the log record."""
        self.retire()
        while not isinstance(self._state, Unloaded | Failed | Closed):
            await self.unload()
        if not isinstance(self._state, Closed):
            self._become(Closed(), "closed the instance of revision %d", self.since_revision, level=level)

    def _cancel_load(self, load: Load) -> None:
        assert isinstance(self._state, Loading)  # noqa: S101  # callers have looked
        load.task.cancel()
        after, otherwise = self._state.after, self._state.otherwise
        ending = load.task if after is None or after.done() else after
        self._drain(ending, otherwise, "load cancelled", level=logging.DEBUG)

    def _end_engine(self, then: Unloaded | Failed, message: str, *args: object, level: int = logging.INFO) -> None:
        assert isinstance(self._state, Ready)  # noqa: S101  # callers have looked
        ending = asyncio.create_task(self._close(self._state.engine), name=f"close {self.name}")
        self._drain(ending, then, message, *args, level=level)

    async def _close(self, engine: Engine) -> None:
        try:
            await engine.close()
        finally:
            self._memory.free(self)

    def _drain(
        self, ending: asyncio.Task[Engine] | asyncio.Task[None], then: Unloaded | Failed,
        message: str, *args: object, level: int,
    ) -> None:  # fmt: skip
        self._become(Draining(ending, then), message, *args, level=level)
        ending.add_done_callback(self._on_drained)

    def _on_drained(self, ending: asyncio.Task[Engine] | asyncio.Task[None]) -> None:
        if isinstance(self._state, Draining) and self._state.ending is ending:
            self._become(self._state.then, "its memory was freed", level=logging.DEBUG)

    def _start_idle_timer(self) -> None:
        self._idle_timer.stop()
        if self.leases == 0 and isinstance(self._state, Ready) and self._stays_for != FOREVER:
            self._idle_timer.start(self._stays_for)

    def _on_idle(self) -> None:
        self._end_engine(Unloaded(), "unloaded after %g s without a request", self._stays_for)

    # The one place where the state changes

    def _become(self, state: State, message: str, *args: object, level: int = logging.INFO) -> None:
        """Enter a state and log why. Raise InvalidTransition if it may not follow the current state."""
        check_transition(self._state, state)
        self._state = state
        if not isinstance(state, Ready):
            self._idle_timer.stop()
        log.log(level, "%s: " + message, self.name, *args)


def _retrieve(task: asyncio.Task[Engine]) -> None:
    """Mark the outcome as retrieved: it is in the log and in `last_error`, even if nobody waits any more."""
    if not task.cancelled():
        task.exception()
