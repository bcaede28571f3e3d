"""The instances by name, and the leases that requests hold on them.

It knows which instances exist and when one replaces another, but neither where manifests come from (reload) nor what a
request contains (api).
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from localapi.backends.pool import PoolOptions
from localapi.errors import ModelNotFound, ModelUnavailable, WrongEndpoint, listed
from localapi.kinds import Kind
from localapi.manifest import Entry, Manifest
from localapi.runtime.downloads import Downloads
from localapi.runtime.instance import Instance
from localapi.runtime.lease import Lease
from localapi.runtime.memory import Memory
from localapi.runtime.peer_instance import PeerInstance
from localapi.runtime.peers import Peers
from localapi.runtime.pool import Member, Pool, nobody
from localapi.runtime.progress import Progress
from localapi.runtime.queue import Queue, Ticket
from localapi.system.in_flight import InFlight

log = logging.getLogger(__name__)

LONGEST_SHOWN = 200
"""Characters of an unknown name that a message repeats."""
MOST_LISTED = 30
"""Existing names that a message lists."""


Find = Callable[[], Entry]
"""Function that returns the current entry. Raises ApiError if it is gone."""


class Rerouted(Exception):  # not an error
    """An edit turned a waiting request's entry into a pool, or replaced its pool; the request looks it up again."""


@dataclass(frozen=True)
class Snapshot:
    """Instances of one revision of the manifest. Replaced as a whole."""

    revision: int
    manifest: Manifest
    instances: Mapping[str, Instance]
    """Instances by entry id."""


@dataclass
class Registry:
    """Current snapshot, and the instances that earlier ones left behind."""

    snapshot: Snapshot = field(default_factory=lambda: Snapshot(0, Manifest(entries={}), {}))
    """Current snapshot; before the first manifest, the empty revision 0."""
    started_at: float = field(default_factory=time.time)
    """Unix time."""
    retiring: dict[Instance, asyncio.Task[None]] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    """Queues by entry id."""
    memory: Memory = field(default_factory=Memory)
    peers: Peers = field(default_factory=lambda: Peers(""))
    downloads: Downloads = field(default_factory=Downloads)
    pinned_by_hand: set[str] = field(default_factory=set)
    """Ids of entries that were pinned through the API. An edit of an entry's `pin` overrides that."""
    closed: bool = False
    """True if the server is shutting down, so nothing is leased any more."""
    may_use: Callable[[Entry], bool] = lambda _: True
    """Return True if the current request may see an entry."""
    in_flight: InFlight = field(default_factory=InFlight)
    """Requests that wait, that have a lease, or whose clients still read the response."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Entries by id, in the manifest's order."""
        return self.snapshot.manifest.entries

    @property
    def offered(self) -> list[Entry]:
        """Entries and their variants that the current request may see."""
        found = self.snapshot.manifest.offered
        return [entry for entry in found if self.may_use(entry)]

    @property
    def drain_seconds(self) -> float:
        """Seconds to wait for running requests before something is ended."""
        return self.snapshot.manifest.server.drain_seconds

    @property
    def not_loaded(self) -> list[str]:
        """Warnings about models that the manifest wants loaded, but are not."""
        wanted = [self.instance(entry.id) for entry in self.entries.values() if entry.options.wants_loading]
        return [
            f"{each.name} is {'pinned' if each.pinned else 'to be preloaded'}, but not loaded: {each.last_error}"
            for each in wanted
            if each.lacks_memory or (each.pinned and each.state == "failed")
        ]

    @property
    def unknown_members(self) -> list[str]:
        """Warnings about members of pools that their peer does not offer, or not yet."""
        manifest = self.snapshot.manifest
        found: list[str] = []
        for entry in self.entries.values():
            for name in entry.options.of if isinstance(entry.options, PoolOptions) else ():
                member = manifest.resolve(name)
                if member is None and not self.peers.is_asked(name):
                    continue
                if member is None:
                    found.append(f"{entry.id}: its member {name} is unknown, and is skipped")
                elif member.kind is not entry.kind:
                    found.append(f"{entry.id}: its member {name} is a {member.kind} model, and is skipped")
        return found

    def resolve(self, name: str, kind: Kind | None = None) -> Entry:
        """Return the entry of an id or alias. Raise ModelNotFound, and WrongEndpoint if it is of another kind."""
        entry = self.snapshot.manifest.resolve(name)
        if entry is not None and not self.may_use(entry):
            entry = None
        if entry is not None and kind in (None, entry.kind):
            return entry
        name = name[:LONGEST_SHOWN]
        known = listed([e.id for e in self.offered if kind in (None, e.kind)], MOST_LISTED) or "none"
        if entry is not None:
            raise WrongEndpoint(
                f"{name!r} is a {entry.kind} model; this endpoint serves {kind} models: {known}.", param="model"
            )
        what = f"{kind} models" if kind else "models"
        names = [n for e in self.offered if kind in (None, e.kind) for n in (e.id, *e.options.aliases)]
        near = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ModelNotFound(
            f"The model {name!r} does not exist.{hint} The manifest has these {what}: {known}.", param="model"
        )

    @asynccontextmanager
    async def lease(self, name: str, kind: Kind, ticket: Ticket | None = None) -> AsyncIterator[Lease]:
        """Lease the instance of a name once it is the request's turn.

        Raise ModelNotFound, WrongEndpoint, ModelBusy, LoadFailed, ModelUnavailable.
        """
        async with AsyncExitStack() as held:
            yield await self._lease(partial(self.resolve, name, kind), None, ticket or Ticket(), held)

    @asynccontextmanager
    async def lease_member(self, pool: Entry, name: str, ticket: Ticket) -> AsyncIterator[Lease]:
        """Lease a member for a request to its pool, even if the key may only use the pool. Raise ModelUnavailable."""

        def find() -> Entry:
            entry = self.entries.get(name)
            if entry is None or entry.kind is not pool.kind or entry.options.is_pool:
                raise ModelUnavailable(f"{name} was removed or replaced.")
            return entry

        async with AsyncExitStack() as held:
            yield await self._lease(find, pool, ticket, held)

    def members(self, names: Sequence[str]) -> list[Member]:
        """Return the entries of these names with their instances and queues."""
        found = [self.snapshot.manifest.resolve(name) for name in names]
        return [Member(each, self.instance(each.id), self.queues[each.id]) for each in found if each is not None]

    def expected(self, entry: Entry) -> Entry:
        """Return the entry that would answer a request now: a member of a pool, or the entry itself.

        Raise NoMember if no member is known.
        """
        instance = self.instance(entry.id)
        if not isinstance(instance, Pool):
            return entry
        members = instance.order(())
        if not members:
            raise nobody(entry, {}, [])
        return members[0].entry

    def answering(self) -> AbstractContextManager[None]:
        """Make a shutdown wait for a request until its client has the whole reply."""
        return self.in_flight.one()

    async def _lease(self, find: Find, pool: Entry | None, ticket: Ticket, held: AsyncExitStack) -> Lease:
        """Return the lease; closing `held` gives it back. `pool` is the requested entry, if it is a pool."""
        while True:
            self.refuse_when_closed()
            queue = self.queues[find().model_id]
            async with AsyncExitStack() as stack:
                stack.enter_context(queue.enter(ticket))
                async with queue.wait(ticket):
                    await ticket.admitted()
                    entry, instance = await self.open_instance(find)
                    if entry.options.is_pool:
                        raise Rerouted
                    if self.queues[entry.model_id] is not queue:  # the name now belongs to another entry
                        continue
                    engine = await stack.enter_async_context(instance.lease())
                queue.send(ticket)
                await held.enter_async_context(stack.pop_all())
                return Lease(entry, pool or entry, engine, instance, queue, ticket)

    def progress(self, entry_id: str, ticket: Ticket) -> Progress:
        """Return what a request waits for: its turn, memory, or a model that is being loaded."""
        if ticket.attempt is not None:
            member_id, attempt = ticket.attempt
            member = self.entries.get(member_id)
            progress = self.progress(member_id, attempt)
            is_secret = member is not None and not self.may_use(member)
            return replace(progress, model=entry_id) if is_secret else progress
        entry = self.snapshot.manifest.resolve(entry_id)
        if entry is None:
            return Progress("waiting", entry_id)
        position = self.queues[entry.model_id].position(ticket)
        if position is not None:
            return Progress("queued", entry_id, position=position)
        instance = self.instance(entry_id)
        position = self.memory.position(instance)
        if position is not None:
            used, budget = self.memory.used, self.memory.budget or 0
            return Progress("memory", entry_id, position=position, done=used, total=budget)
        loading, peer = instance.progress, entry.peer
        if loading is None:
            return Progress("loading" if instance.state == "loading" else "waiting", entry_id, at=peer)
        return Progress("loading", entry_id, at=peer, step=loading.text, done=loading.done, total=loading.total)

    def set_pin(self, entry_id: str, *, by_hand: bool) -> None:
        """Pin an entry, or unpin it. Do nothing if the entry has been removed in the meantime."""
        if entry_id not in self.entries:
            return
        if by_hand:
            self.pinned_by_hand.add(entry_id)
        else:
            self.pinned_by_hand.discard(entry_id)
        self.instance(entry_id).follow(self.entries[entry_id], by_hand=by_hand)

    async def open_instance(self, find: Find) -> tuple[Entry, Instance]:
        """Return the entry that `find` returns and its instance, as soon as that accepts new leases."""
        while True:
            self.refuse_when_closed()
            entry = find()
            instance = self.instance(entry.id)
            if instance.gate.is_open:
                return entry, instance
            await instance.gate.passed()

    def refuse_when_closed(self) -> None:
        """Raise ModelUnavailable if the server is shutting down."""
        if self.closed:
            raise ModelUnavailable("The server is shutting down.")

    def instance(self, entry_id: str) -> Instance:
        """Return the current instance of an entry, or of the entry that a variant belongs to."""
        variant = self.snapshot.manifest.variants.get(entry_id)
        return self.snapshot.instances[entry_id if variant is None else variant.model_id]

    def commit(self, manifest: Manifest, prepared: Mapping[str, Instance]) -> Snapshot:
        """Make a manifest current: one assignment, no await.

        An entry keeps its instance if its identity is the same. Otherwise it gets the one that was prepared for it, or
        a new one, which loads at the first request. The remaining instances retire.
        """
        old = self.snapshot
        revision = old.revision + 1
        self._follow_pins(manifest)
        instances = {
            entry.id: self._instance_for(entry, prepared.get(entry.id), revision) for entry in manifest.entries.values()
        }
        self.snapshot = Snapshot(revision, manifest, MappingProxyType(instances))
        self._commit_queues(old)
        budget, was = manifest.server.memory_budget, self.memory.budget
        if budget != was:
            self.memory.follow(budget)
            for instance in instances.values():
                instance.backoff.reset()
                if instance.pinned and instance.state == "failed":
                    instance.begin_loading()
        leaving = [each for each in old.instances.values() if instances.get(each.name) is not each]
        for instance in leaving:
            self._retire(instance)
        raised = was is not None and (budget is None or budget > was)
        self._load_ahead(old, more_room=raised or bool(leaving))
        if raised:
            for instance in instances.values():
                instance.forget_lack_of_memory()
        return self.snapshot

    def _load_ahead(self, old: Snapshot, *, more_room: bool) -> None:
        """Load what an edit wants loaded, and what had no room: pinned models first, then in order."""
        before = old.manifest.entries
        for entry in sorted(self.entries.values(), key=lambda each: not each.options.pin):
            instance, was = self.instance(entry.id), before.get(entry.id)
            edited = was is None or (was.kind, was.identity, was.settings) != (
                entry.kind,
                entry.identity,
                entry.settings,
            )
            wanted = entry.options.wants_loading and (edited or (more_room and instance.lacks_memory))
            if wanted and instance.state in ("unloaded", "failed"):
                instance.begin_loading()

    def _follow_pins(self, manifest: Manifest) -> None:
        """Forget API pins of entries that were removed, or whose `pin` was edited."""
        for name in list(self.pinned_by_hand):
            new = manifest.entries.get(name)
            if new is None or new.options.pin != self.entries[name].options.pin:
                self.pinned_by_hand.discard(name)

    def _commit_queues(self, old: Snapshot) -> None:
        for name in self.queues.keys() - self.entries.keys():
            self.queues.pop(name).close()
        for entry in self.entries.values():
            instance = self.instance(entry.id)
            queue = self.queues.setdefault(entry.id, Queue(entry.id, entry.options, instance))
            queue.follow(entry.options)
            if old.instances.get(entry.id) is not instance:
                queue.replace_engine(instance)

    def refresh(self, manifest: Manifest) -> None:
        """Adopt an equal manifest: positions and hashes change, the revision does not."""
        self.snapshot = replace(self.snapshot, manifest=manifest)

    def _instance_for(self, entry: Entry, prepared: Instance | None, revision: int) -> Instance:
        current = self.snapshot.instances.get(entry.id)
        old = self.entries.get(entry.id)
        if prepared is not None:
            prepared.since_revision = revision
            instance = prepared
        elif current is not None and current.identity == entry.identity:
            instance = current
            if old is not None and old.settings != entry.settings:
                instance.backoff.reset()
        else:
            instance = self.new_instance(entry, revision)
        instance.follow(entry, by_hand=entry.id in self.pinned_by_hand)
        return instance

    def new_instance(self, entry: Entry, revision: int = 0) -> Instance:
        """Return an instance of an entry. Without a revision, it is not in a snapshot yet."""
        if isinstance(entry.options, PoolOptions):
            return Pool(entry.id, entry.options, since_revision=revision, memory=self.memory, members=self.members)
        if entry.peer is not None:
            return PeerInstance(entry, self.peers, since_revision=revision, memory=self.memory)
        return Instance(entry.id, entry.options, since_revision=revision, memory=self.memory)

    def _retire(self, instance: Instance) -> None:
        """Stop new leases of an instance, and close it after its last one."""
        instance.retire()
        self.retiring[instance] = asyncio.create_task(self._end(instance), name=f"retire {instance.name}")

    async def _end(self, instance: Instance) -> None:
        try:
            await instance.idle()
            level = logging.INFO if instance.engine is not None else logging.DEBUG
            await instance.close(level=level)
        finally:
            self.retiring.pop(instance, None)

    def all_instances(self) -> list[Instance]:
        """Return the instances of the snapshot, then those that are retiring."""
        current = list(self.snapshot.instances.values())
        return current + list(self.retiring)

    async def drain(self, seconds: float, report: Callable[[int], None]) -> bool:
        """Wait at most this long for running requests. `report` gets their number every few seconds."""
        deadline = time.monotonic() + seconds
        while self.in_flight.count and (left := deadline - time.monotonic()) > 0:
            report(self.in_flight.count)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, 5)):
                    await self.in_flight.none()
        return self.in_flight.count == 0

    async def close(self) -> None:
        """End every engine, even if it is leased."""
        self.closed = True
        for queue in self.queues.values():
            queue.close()
        instances = self.all_instances()
        tasks = list(self.retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(each.close() for each in instances), *tasks, return_exceptions=True)
