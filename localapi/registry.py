"""Name to instance, as requests see it; instances and the leases that requests hold on them.

Knows when a model is loaded and when it may end. Refuses to know where manifests come from (reload) and what a request
says (api).
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from localapi.backends.engine import Engine
from localapi.backends.options import FOREVER, EntryOptions, Identity, Kind
from localapi.errors import LoadFailed, ModelNotFound, ModelUnavailable, WrongEndpoint
from localapi.manifest import Entry, Manifest
from localapi.worker.protocol import Loading

log = logging.getLogger(__name__)

LONGEST_SHOWN = 200
"""Characters of a name that does not exist, in messages."""
State = Literal["unloaded", "loading", "ready", "failed", "closed"]


class Instance:
    """One entry running as one identity described it. Outlives its manifest while leased."""

    def __init__(self, name: str, options: EntryOptions, *, keep_alive: float, since_revision: int) -> None:
        self.name = name
        self.options = options
        self.identity: Identity = options.identity()
        self.keep_alive = keep_alive
        """Seconds from the last lease to unloading."""
        self.since_revision = since_revision
        self.leases = 0
        self.loads = 0
        self.worker_deaths = 0
        self.progress: Loading | None = None
        self.last_error: str | None = None
        self.ready_since: float | None = None
        """Unix time."""
        self.retired = False
        self.reopened: asyncio.Event | None = None
        """Set while a cold swap keeps new leases waiting; the event ends the wait."""
        self._engine: Engine | None = None
        self._loading: asyncio.Task[Engine] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
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
        return "failed" if self.last_error is not None else "unloaded"

    @property
    def engine(self) -> Engine | None:
        """The loaded engine; None where nothing is loaded."""
        return self._engine

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Engine]:
        """One request's right to use this instance; loads it first. Raises LoadFailed."""
        self.leases += 1
        self._no_leases.clear()
        self._stop_idle_timer()
        try:
            yield await self.load()
        finally:
            self.leases -= 1
            if self.leases == 0:
                self._no_leases.set()
                self._start_idle_timer()

    async def load(self) -> Engine:
        """The engine, loaded once however many wait for it. Raises LoadFailed.

        A load goes on when whoever asked for it has left: the next request will want it.
        """
        while self._closing is not None:
            await asyncio.shield(self._closing)
        if self._engine is not None:
            return self._engine
        try:
            return await asyncio.shield(self.begin_loading())
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise ModelUnavailable(
                f"{self.name} was unloaded while it was being loaded. Send the request again."
            ) from None

    def begin_loading(self) -> asyncio.Task[Engine]:
        """The load that goes on, or a new one. Nobody has to wait for it."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name=f"load {self.name}")
            self._loading.add_done_callback(_retrieve)
        return self._loading

    async def _load(self) -> Engine:
        started = time.monotonic()
        try:
            while self._closing is not None:
                await asyncio.shield(self._closing)
            log.info("%s: loading", self.name)
            engine = await self.options.start(self.name, self._report)
        except LoadFailed as error:
            self.last_error = error.message
            log.error("%s: not loaded: %s", self.name, error.message)  # the message is the whole story
            raise
        finally:
            self._loading = None
            self.progress = None
        self._engine = engine
        self.loads += 1
        self.last_error = None
        self.ready_since = time.time()
        engine.ended.add_done_callback(lambda ended: self._on_ended(engine, ended))
        if self.leases == 0:
            self._start_idle_timer()
        log.info("%s: loaded in %.1f s", self.name, time.monotonic() - started)
        for note in engine.loaded.notes:
            log.info("%s: %s", self.name, note)
        return engine

    def _report(self, progress: Loading) -> None:
        if self.progress is None or self.progress.phase != progress.phase:
            log.info("%s: %s", self.name, progress.phase)
        self.progress = progress

    def _on_ended(self, engine: Engine, ended: asyncio.Future[str]) -> None:
        if ended.cancelled() or self._engine is not engine:
            return
        self.worker_deaths += 1
        self.last_error = ended.result()
        log.error("%s: %s; the next request loads it again", self.name, self.last_error)
        self._close_engine()

    async def unload(self) -> None:
        """End the engine, whoever uses it, and give its memory back. The next lease loads again."""
        self._stop_idle_timer()
        if (loading := self._loading) is not None:
            loading.cancel()
            await asyncio.wait([loading])
            self._loading = None  # also where it was cancelled before it began
        self._close_engine()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def _close_engine(self) -> None:
        self._stop_idle_timer()
        engine, self._engine, self.ready_since = self._engine, None, None
        if engine is not None:
            self._closing = asyncio.create_task(self._close(engine), name=f"close {self.name}")

    async def _close(self, engine: Engine) -> None:
        try:
            await engine.close()
        finally:
            if self._closing is asyncio.current_task():
                self._closing = None

    async def drained(self) -> None:
        """Wait until no lease is held."""
        await self._no_leases.wait()

    def set_keep_alive(self, seconds: float) -> None:
        """Applied in place, also to a wait that has begun."""
        if seconds != self.keep_alive:
            self.keep_alive = seconds
            self._start_idle_timer()

    def _start_idle_timer(self) -> None:
        self._stop_idle_timer()
        if self.leases == 0 and self._engine is not None and self.keep_alive != FOREVER:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self.keep_alive, self._on_idle)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _on_idle(self) -> None:
        log.info("%s: unloaded after %g s without a request", self.name, self.keep_alive)
        self._close_engine()


def _retrieve(task: asyncio.Task[Engine]) -> None:
    """Mark the outcome as seen: it is in the log and in `last_error`, also when nobody waits any more."""
    if not task.cancelled():
        task.exception()


@dataclass(frozen=True)
class Snapshot:
    """What one manifest made true; replaced as a whole."""

    revision: int
    manifest: Manifest
    instances: Mapping[str, Instance]
    """By entry id."""


@dataclass(frozen=True)
class Lease:
    """What a request works with: its entry as it was when it came, and a loaded engine."""

    entry: Entry
    engine: Engine


@dataclass
class Registry:
    """The current snapshot, and the instances that earlier ones left behind."""

    snapshot: Snapshot | None = None
    started_at: float = field(default_factory=time.time)
    """Unix time."""
    retiring: dict[Instance, asyncio.Task[None]] = field(default_factory=dict)
    closed: bool = False
    """Whether nothing is leased any more, because the server ends."""
    may_use: Callable[[Entry], bool] = lambda _: True
    """Whether whoever asks now may know an entry."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By id, in the manifest's order."""
        return self.snapshot.manifest.entries if self.snapshot else MappingProxyType({})

    @property
    def offered(self) -> list[Entry]:
        """Those that whoever asks now may know."""
        return [entry for entry in self.entries.values() if self.may_use(entry)]

    def resolve(self, name: str, kind: Kind | None = None) -> Entry:
        """The entry of that id or alias. Raises ModelNotFound, and WrongEndpoint where it is of another kind."""
        entry = self.snapshot.manifest.resolve(name) if self.snapshot else None
        if entry is not None and not self.may_use(entry):
            entry = None
        if entry is not None and kind in (None, entry.kind):
            return entry
        name = name[:LONGEST_SHOWN]
        known = ", ".join(e.id for e in self.offered if kind in (None, e.kind)) or "none"
        if entry is not None:
            raise WrongEndpoint(
                f"{name!r} is a {entry.kind} model; this endpoint serves {kind} models: {known}.", param="model"
            )
        what = f"{kind} models" if kind else "models"
        names = [n for e in self.offered if kind in (None, e.kind) for n in (e.id, *e.serving.aliases)]
        near = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ModelNotFound(
            f"The model {name!r} does not exist.{hint} The manifest has these {what}: {known}.", param="model"
        )

    @asynccontextmanager
    async def lease(self, name: str, kind: Kind) -> AsyncIterator[Lease]:
        """Lease the instance behind a name. Raises ModelNotFound, WrongEndpoint, LoadFailed, ModelUnavailable."""
        while True:
            if self.closed:
                raise ModelUnavailable("The server is shutting down.")
            entry = self.resolve(name, kind)
            instance = self.instance(entry.id)
            if instance.reopened is None:
                break
            await instance.reopened.wait()
        async with instance.lease() as engine:
            yield Lease(entry, engine)

    def instance(self, entry_id: str) -> Instance:
        """The current instance of an entry."""
        if self.snapshot is None:
            raise LookupError(entry_id)
        return self.snapshot.instances[entry_id]

    def commit(self, manifest: Manifest, prepared: Mapping[str, Instance]) -> Snapshot:
        """Make a manifest current: one assignment, no await.

        An entry keeps its instance where its identity is the same, takes the one that was prepared for it, or gets a
        new one that loads at the first request. Instances that are left over retire.
        """
        old = self.snapshot
        revision = old.revision + 1 if old else 1
        instances = {
            entry.id: self._instance_for(entry, prepared.get(entry.id), revision) for entry in manifest.entries.values()
        }
        self.snapshot = Snapshot(revision, manifest, MappingProxyType(instances))
        for instance in old.instances.values() if old else ():
            if instances.get(instance.name) is not instance:
                self._retire(instance)
        return self.snapshot

    def refresh(self, manifest: Manifest) -> None:
        """Take a manifest that says the same in other words: places and hashes change, the revision does not."""
        if self.snapshot is not None:
            self.snapshot = replace(self.snapshot, manifest=manifest)

    def _instance_for(self, entry: Entry, prepared: Instance | None, revision: int) -> Instance:
        current = self.snapshot.instances.get(entry.id) if self.snapshot else None
        keep_alive = entry.serving.keep_alive
        if prepared is not None:
            prepared.since_revision = revision
            instance = prepared
        elif current is not None and current.identity == entry.identity:
            instance = current
        else:
            instance = Instance(entry.id, entry.options, keep_alive=keep_alive, since_revision=revision)
        instance.set_keep_alive(keep_alive)
        return instance

    def _retire(self, instance: Instance) -> None:
        """Take no new leases, wait for the last one, end the worker."""
        instance.retired = True
        if instance.reopened is not None:
            instance.reopened.set()
        self.retiring[instance] = asyncio.create_task(self._end(instance), name=f"retire {instance.name}")

    async def _end(self, instance: Instance) -> None:
        try:
            await instance.drained()
            loaded = instance.engine is not None
            await instance.unload()
            if loaded:
                log.info("%s: the instance of revision %d is closed", instance.name, instance.since_revision)
        finally:
            self.retiring.pop(instance, None)

    def all_instances(self) -> list[Instance]:
        """Those of the snapshot, then those that retire."""
        current = list(self.snapshot.instances.values()) if self.snapshot else []
        return current + list(self.retiring)

    def leases(self) -> int:
        """How many requests are being answered."""
        return sum(instance.leases for instance in self.all_instances())

    async def drain(self, seconds: float, report: Callable[[int], None]) -> bool:
        """Wait for running requests, at most so long; `report` gets their number every few seconds."""
        deadline = time.monotonic() + seconds
        while (running := self.leases()) and (left := deadline - time.monotonic()) > 0:
            report(running)
            waiting = [asyncio.create_task(i.drained()) for i in self.all_instances()]
            await asyncio.wait(waiting, timeout=min(left, 5), return_when=asyncio.ALL_COMPLETED)
            for task in waiting:
                task.cancel()
        return self.leases() == 0

    async def close(self) -> None:
        """End every worker, whoever uses it."""
        self.closed = True
        instances = self.all_instances()
        tasks = list(self.retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(i.unload() for i in instances), *tasks, return_exceptions=True)
