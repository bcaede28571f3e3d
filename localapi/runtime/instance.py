"""One entry running as one identity described it: when its model is loaded and when it ends.

Knows leases, and how long an unused model stays. Refuses to know names, manifests and what a request says.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal, Protocol

from localapi.backends.engine import Engine, Supervised, Vitals
from localapi.backends.options import DEFAULT_STALL_SECONDS, FOREVER, EntryOptions, Identity
from localapi.errors import LoadFailed, ModelUnavailable, NoRoom, NoRoomAhead
from localapi.manifest import Entry
from localapi.runtime.backoff import FIRST_PAUSE_SECONDS, Restarts
from localapi.runtime.load import Load
from localapi.system.timer import Timer
from localapi.worker.protocol import Loading

log = logging.getLogger(__name__)

RESTART_SECONDS: Final = 1.0
"""Before a pinned model is loaded again by itself."""

State = Literal["unloaded", "loading", "ready", "failed", "closed"]


class Room(Protocol):
    """What instances ask before they load, and tell when they have ended."""

    async def enter(self, instance: Instance) -> bool:
        """Wait until there is memory for it; whether it has a bound. Raises LoadFailed where there can be none."""

    def leave(self, instance: Instance) -> None:
        """Its worker has ended."""

    def wake(self) -> None:
        """An instance has become idle."""


class Instance:
    """One entry running as one identity described it. Outlives its manifest while leased."""

    def __init__(self, name: str, options: EntryOptions, *, since_revision: int, room: Room) -> None:
        self.name = name
        self.options = options
        self.identity: Identity = options.identity()
        self.keep_alive = FOREVER
        """Seconds from the last lease to unloading."""
        self.pinned = False
        self.stall_seconds: float | None = DEFAULT_STALL_SECONDS
        """How long a worker with work may do nothing."""
        self.restarts = Restarts()
        self.since_revision = since_revision
        self.leases = 0
        self.loads = 0
        self.worker_deaths = 0
        self.restarted = 0
        """Loads after a worker had ended by itself or had been ended."""
        self.last_error: str | None = None
        self.left_out: str | None = None
        """Why it is not loaded ahead of requests: there is no room for it beside what is loaded."""
        self.asked = False
        """Whether a request has used what is loaded."""
        self.ready_since: float | None = None
        """Unix time."""
        self.last_used = time.monotonic()
        self.retired = False
        self._room = room
        self._waiters = 0
        self._died = False
        """Whether the last worker ended by itself."""
        self._failure: type[LoadFailed] | None = None
        """Of which kind the last load's was, where it failed; the error itself would keep alive what it passed."""
        self._restart_timer = Timer(self._restart)
        self._holds: set[str] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._engine: Engine | None = None
        self._loading: Load | None = None
        self._closing: asyncio.Task[None] | None = None
        self._idle_timer = Timer(self._on_idle)
        self._no_leases = asyncio.Event()
        self._no_leases.set()

    @property
    def state(self) -> State:
        if self.retired and self._engine is None and self._loading is None:
            return "closed"
        if self._loading is not None:
            return "loading"
        if self._engine is not None:
            return "ready"
        # A worker that has ended by itself needs nobody: the next request loads the model again.
        return "failed" if self._failure is not None or self.restarts.seconds_left else "unloaded"

    @property
    def lacks_room(self) -> bool:
        """Whether it is not loaded because memory_budget leaves no room for it."""
        return self.left_out is not None or self._failure is NoRoom

    @property
    def comes_back(self) -> bool:
        """Whether it will be loaded again by itself."""
        return self.pinned and self._restart_timer.runs

    @property
    def engine(self) -> Engine | None:
        """The loaded engine; None where nothing is loaded."""
        return self._engine

    @property
    def progress(self) -> Loading | None:
        """How far loading is."""
        return self._loading.progress if self._loading is not None else None

    @property
    def supervised(self) -> Supervised | None:
        """The engine, or what loads its model; None if nothing can be measured or ended."""
        if self._engine is not None:
            return self._engine
        return self._loading.by if self._loading is not None else None

    @property
    def vitals(self) -> Vitals | None:
        """Of the loaded engine; None if nothing is loaded."""
        return self._engine.vitals() if self._engine is not None else None

    @property
    def at_once(self) -> int | None:
        """Requests that the engine answers concurrently; None if it never queues any."""
        return self._engine.vitals().max_batch if self._engine is not None else self.options.at_once

    @property
    def line(self) -> int:
        """Requests that are queued inside the engine."""
        return self._engine.vitals().queued if self._engine is not None else 0

    @property
    def loads_now(self) -> bool:
        """Whether it is being loaded."""
        return self._loading is not None

    @property
    def ahead_of_requests(self) -> bool:
        """Whether it is loaded for requests that may come, and for none that has."""
        return self._waiters == 0 and not self.pinned and self.since_revision != 0

    @property
    def stays(self) -> bool:
        """Whether it must not be ended for another one: it is pinned, or about to take another one's place."""
        return not self.retired and (self.pinned or self.since_revision == 0)

    def evict(self, why: str) -> None:
        """End an idle worker for another model."""
        log.info("%s: unloaded: %s", self.name, why)
        if not self.asked:
            self.left_out = self.last_error = f"Unloaded before a request came: {why}. Its next request loads it again."
        self._close_engine()

    @property
    def held(self) -> bool:
        """Whether new leases have to wait."""
        return bool(self._holds)

    def hold(self, why: str) -> None:
        """Keep new leases waiting, until what was held for this reason is released."""
        self._holds.add(why)
        self._open.clear()

    def release(self, why: str) -> bool:
        """Take back a hold; whether there was one."""
        held = why in self._holds
        self._holds.discard(why)
        if not self._holds:
            self._open.set()
        return held

    def forget_lack_of_room(self) -> None:
        """There may be room for it now: the next load finds out."""
        if self._failure is NoRoom and self._loading is None:
            self._failure = self.last_error = None

    async def opened(self) -> None:
        """Wait until nothing holds new leases back."""
        await self._open.wait()

    def retire(self) -> None:
        """Whoever waits for a lease has to look for the instance that came after this one."""
        self.retired = True
        self._holds.clear()
        self._open.set()

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Engine]:
        """One request's right to use this instance; loads it first. Raises LoadFailed."""
        self.leases += 1
        self.asked = True
        self._no_leases.clear()
        self._idle_timer.stop()
        try:
            yield await self.load()
        finally:
            self.leases -= 1
            self.last_used = time.monotonic()
            if self.leases == 0:
                self._no_leases.set()
                self._start_idle_timer()
                self._room.wake()

    async def load(self) -> Engine:
        """The engine, loaded once however many wait for it. Raises LoadFailed, and ModelUnavailable in a pause.

        A load goes on when whoever asked for it has left: the next request will want it.
        """
        if self._engine is not None and self._engine.ended.done():
            self._on_ended(self._engine, self._engine.ended)
        while self._closing is not None:
            await asyncio.shield(self._closing)
        if self._engine is not None:
            return self._engine
        if self._loading is None:
            self._refuse_in_a_pause()
        self._waiters += 1
        try:
            return await asyncio.shield(self._begin_loading().task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise ModelUnavailable(
                f"{self.name} was unloaded while it was being loaded. Send the request again."
            ) from None
        finally:
            self._waiters -= 1
            load = self._loading
            if load is not None and self._waiters == 0 and not load.has_room and not load.on_its_own:
                self._loading = None
                load.task.cancel()  # it waits for memory, and nobody for it

    def _refuse_in_a_pause(self) -> None:
        if left := self.restarts.seconds_left:
            raise ModelUnavailable(
                f"{self.name} failed {self.restarts.in_a_row} times in a row and is left alone for {left:.0f} s: "
                f"{self.last_error} (POST /admin/models/{self.name}/load tries at once.)",
                retry_after_seconds=left,
            )

    def begin_loading(self) -> None:
        """Load it if it is not loaded, whether or not somebody waits for it."""
        if self._engine is None:
            self._begin_loading().on_its_own = True

    def _begin_loading(self) -> Load:
        """The load that goes on, or a new one."""
        if self._loading is None:
            self._loading = load = Load(self.name, self.options)
            load.task = asyncio.create_task(self._load(load), name=f"load {self.name}")
            load.task.add_done_callback(_retrieve)
        return self._loading

    async def _load(self, load: Load) -> Engine:
        started = time.monotonic()
        try:
            while self._closing is not None:
                await asyncio.shield(self._closing)
            bounded = await self._room.enter(self)
            load.has_room = True
            engine = await load.start(bounded=bounded)
        except BaseException as error:
            if load.has_room:
                self._room.leave(self)
            if not isinstance(error, Exception):
                raise
            failure = load.failure(error)
            self._note_failure(failure)
            raise failure from error
        finally:
            if self._loading is load:
                self._loading = None
        self._take(engine)
        log.info("%s: loaded in %.1f s", self.name, time.monotonic() - started)
        for note in engine.loaded.notes:
            log.info("%s: %s", self.name, note)
        return engine

    def _take(self, engine: Engine) -> None:
        """It is loaded."""
        self._engine = engine
        self.loads += 1
        self.restarted += self._died
        self._died = False
        self._restart_timer.stop()
        self._failure = self.last_error = self.left_out = None
        self.asked = self.leases > 0
        self.ready_since = time.time()
        engine.ended.add_done_callback(lambda ended: self._on_ended(engine, ended))
        self.last_used = time.monotonic()
        if self.leases == 0:
            self._start_idle_timer()
            self._room.wake()

    def _note_failure(self, failure: LoadFailed) -> None:
        """It is not loaded."""
        if isinstance(failure, NoRoomAhead):
            self.left_out = self.last_error = failure.message
            self._failure = None
            log.warning("%s: %s", self.name, failure.message)
            return
        again = not failure.counts and _plain(failure.message) == _plain(self.last_error)
        log.log(logging.DEBUG if again else logging.ERROR, "%s: not loaded: %s", self.name, failure.message)
        self.last_error, self.left_out, self._failure = failure.message, None, type(failure)
        self._count_failure(counts=failure.counts)

    def _on_ended(self, engine: Engine, ended: asyncio.Future[str]) -> None:
        if ended.cancelled() or self._engine is not engine:
            return
        self.worker_deaths += 1
        self.last_error = ended.result()
        self._died = True
        log.error("%s: %s; the next request loads it again", self.name, self.last_error)
        self._close_engine()
        self._count_failure()

    def _count_failure(self, *, counts: bool = True) -> None:
        if counts:
            self.restarts.failed()
        if left := self.restarts.seconds_left:
            log.error("%s: failed %d times in a row; left alone for %.0f s", self.name, self.restarts.in_a_row, left)
        if self.pinned and not self.retired:
            self._restart_timer.start(max(left, RESTART_SECONDS if counts else FIRST_PAUSE_SECONDS))

    def _restart(self) -> None:
        """Load a pinned model again, for which nobody has to ask."""
        if self.pinned and not self.retired:
            self.begin_loading()

    async def unload(self) -> None:
        """End the engine, whoever uses it, and give its memory back. The next lease loads again."""
        self._restart_timer.stop()
        self._idle_timer.stop()
        if (loading := self._loading) is not None:
            loading.task.cancel()
            await asyncio.wait([loading.task])
            if self._loading is loading:  # it was cancelled before it began
                self._loading = None
        self._close_engine()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def _close_engine(self) -> None:
        self._idle_timer.stop()
        engine, self._engine, self.ready_since = self._engine, None, None
        if engine is not None:
            self._closing = asyncio.create_task(self._close(engine), name=f"close {self.name}")

    async def _close(self, engine: Engine) -> None:
        try:
            await engine.close()
        finally:
            self._room.leave(self)
            if self._closing is asyncio.current_task():
                self._closing = None

    async def unload_when_free(self, seconds: float) -> bool:
        """Unload as soon as no request runs, while new ones wait; whether that came within so many seconds."""
        self.hold("unload")
        try:
            async with asyncio.timeout(seconds):
                await self.drained()
            await self.unload()
        except TimeoutError:
            return False
        finally:
            self.release("unload")
        return True

    async def drained(self) -> None:
        """Wait until no lease is held."""
        await self._no_leases.wait()

    def follow(self, entry: Entry, *, by_hand: bool = False) -> None:
        """Apply settings in place, also to a wait that has begun. `by_hand`: pinned, whatever the manifest says."""
        self.pinned = entry.options.pin or by_hand
        keep_alive = FOREVER if self.pinned else entry.keep_alive
        self.stall_seconds = entry.options.stall_seconds
        if keep_alive != self.keep_alive:
            self.keep_alive = keep_alive
            self._start_idle_timer()

    def _start_idle_timer(self) -> None:
        self._idle_timer.stop()
        if self.leases == 0 and self._engine is not None and self.keep_alive != FOREVER:
            self._idle_timer.start(self.keep_alive)

    def _on_idle(self) -> None:
        log.info("%s: unloaded after %g s without a request", self.name, self.keep_alive)
        self._close_engine()


def _plain(message: str | None) -> str:
    """Without its numbers: a load that is tried every few seconds finds other sizes each time."""
    return re.sub(r"\d+", "", message or "")


def _retrieve(task: asyncio.Task[Engine]) -> None:
    """Mark the outcome as seen: it is in the log and in `last_error`, also when nobody waits any more."""
    if not task.cancelled():
        task.exception()
