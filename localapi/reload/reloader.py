"""The server follows its manifest: read → diff → prepare → commit → retire.

Level-triggered: whatever notices a change only sets an event, and one task runs passes, so any number of changes during
a pass cause exactly one more. A pass that fails changes nothing; what it found is kept for `GET /status`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localapi.errors import LoadFailed, ManifestError, ModelUnavailable, Problem
from localapi.manifest import Entry, Manifest
from localapi.reload.summary import told
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry
from localapi.system.threads import aside
from localapi.system.timer import Timer

log = logging.getLogger(__name__)

_SWAP = "swap"
SLOW_SECONDS = 10.0
"""No disk takes as long for a manifest."""
RETRY_SECONDS = 5.0
"""After a manifest that could not be read, though nothing may be wrong with it."""


@dataclass(frozen=True)
class Diff:
    """What an edit means, as entry ids in the manifest's order."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """What is loaded differs."""
    updated: tuple[str, ...] = ()
    """Only how it is offered differs: applied in place."""
    removed: tuple[str, ...] = ()
    server: bool = False
    """Whether the part `server` differs, or a key's secret."""

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.updated or self.removed or self.server)

    def __str__(self) -> str:
        return told(vars(self), server=self.server)


def diff(old: Manifest | None, new: Manifest) -> Diff:
    """Compare two manifests by the identities and settings of their entries."""
    before: Mapping[str, Entry] = old.entries if old else {}
    both = [entry for entry in new.entries.values() if entry.id in before]
    changed = tuple(e.id for e in both if e.identity != before[e.id].identity or e.kind != before[e.id].kind)
    return Diff(
        added=tuple(name for name in new.entries if name not in before),
        changed=changed,
        updated=tuple(e.id for e in both if e.id not in changed and e.settings != before[e.id].settings),
        removed=tuple(name for name in before if name not in new.entries),
        server=old is not None and (old.server, old.keys) != (new.server, new.keys),
    )


@dataclass(frozen=True)
class Attempt:
    """One pass, for people: what it did or why it did nothing."""

    at: float
    """Unix time."""
    revision: int
    """The revision that serves after it."""
    diff: Diff = Diff()
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


class Superseded(Exception):  # nothing went wrong: the manifest changed again while a pass prepared
    """The pass begins anew; what it has prepared is kept for the next one."""


class Reloader:
    """Runs the passes.

    `read` blocks and raises ManifestError. `apply` is called with each manifest that was committed, for what is not per
    model; `tell` with each attempt.
    """

    def __init__(
        self,
        registry: Registry,
        read: Callable[[], Manifest],
        *,
        apply: Callable[[Manifest], None] = lambda _: None,
        tell: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self.registry = registry
        self.last_attempt: Attempt | None = None
        self.last_change: Attempt | None = None
        """The one that made the revision that serves."""
        self._read = read
        self._apply = apply
        self._tell = tell
        self._wanted = asyncio.Event()
        self._waiters: list[asyncio.Future[Attempt]] = []
        self._prepared: dict[str, Instance] = {}
        """Instances that load for a manifest that is not committed yet, by entry id."""
        self.preparing = False
        self.reading_since: float | None = None
        """Unix time; None where the manifest is not being read."""
        self.reads_slowly = False
        """Whether that takes longer than a disk needs."""
        self._retry = Timer(self.trigger)

    def trigger(self) -> None:
        """Ask for a pass."""
        self._wanted.set()

    async def reload(self) -> Attempt:
        """Ask for a pass and wait for its outcome. Raises ModelUnavailable where the server ends before."""
        waiter: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.trigger()
        return await waiter

    async def start(self) -> Attempt:
        """The first pass. Raises ManifestError."""
        attempt = await self._pass()
        if attempt.problems:
            raise ManifestError(attempt.problems)
        return attempt

    async def run(self) -> None:
        """Run a pass for each trigger, for ever."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                # Whoever asks while this pass runs is answered by the next one: this one has read already.
                count = len(self._waiters)
                try:
                    attempt = await self._pass()
                except Superseded:
                    log.info("another change came while models were loading: reading the manifest again")
                    continue
                waiters, self._waiters = self._waiters[:count], self._waiters[count:]
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(attempt)
        finally:
            self._retry.stop()
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_exception(ModelUnavailable("The server is shutting down."))
            await self._discard(list(self._prepared))

    async def _pass(self) -> Attempt:
        self._retry.stop()
        changes = Diff()
        try:
            manifest = await self._read_aside()
            changes = diff(self._current(), manifest)
            await self._prepare(changes, manifest)
            attempt = self._commit(manifest, changes)
        except ManifestError as error:
            await self._discard(self._prepared.keys())
            attempt = self._refused(error)
        except Superseded:
            raise
        except Exception as error:  # ours to mend; following the manifest must go on
            log.exception("the manifest could not be applied")
            await self._discard(self._prepared.keys())
            problem = Problem("manifest", f"could not be applied: {type(error).__name__}: {error}")
            attempt = self._refused(ManifestError([problem]))
        self.last_attempt = attempt
        self._tell(attempt)
        return attempt

    async def _read_aside(self) -> Manifest:
        """Where that never ends, only the manifest is not followed: nothing waits for it, not even a shutdown."""
        self.reading_since = time.time()
        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._tell_of_a_slow_read)
        try:
            return await aside(self._read)
        finally:
            slow.cancel()
            self.reading_since, self.reads_slowly = None, False

    def _tell_of_a_slow_read(self) -> None:
        self.reads_slowly = True
        log.warning(
            "the manifest has been read for %g s and has not come; is its drive connected? Revision %d serves on",
            SLOW_SECONDS,
            self._revision(),
        )

    def _current(self) -> Manifest | None:
        return self.registry.snapshot.manifest if self.registry.snapshot else None

    def _revision(self) -> int:
        return self.registry.snapshot.revision if self.registry.snapshot else 0

    def _refused(self, error: ManifestError) -> Attempt:
        revision = self._revision()
        passing = all(problem.passing for problem in error.problems)
        if revision:
            again = passing and self.last_attempt is not None and self.last_attempt.problems == error.problems
            level = logging.DEBUG if again else logging.ERROR
            for problem in error.problems:
                log.log(level, "manifest refused: %s", problem)
            log.log(level, "revision %d serves on", revision)
        if passing:
            # No file will change when a drive is back or a descriptor is free, so nothing would ask for a pass.
            self._retry.start(RETRY_SECONDS)
        return Attempt(time.time(), revision, problems=error.problems)

    def _commit(self, manifest: Manifest, changes: Diff) -> Attempt:
        """Make it current; a manifest that says what the current one says makes no new revision."""
        first = self.registry.snapshot is None
        was_refused = self.last_attempt is not None and not self.last_attempt.ok
        if changes or first:
            prepared, self._prepared = self._prepared, {}
            revision = self.registry.commit(manifest, prepared).revision
            self._apply(manifest)
            if not first:
                log.info("reloaded revision %d: %s", revision, changes)
        else:
            self.registry.refresh(manifest)
            level = logging.INFO if was_refused else logging.DEBUG
            log.log(level, "the manifest was read and says what revision %d serves", self._revision())
        attempt = Attempt(time.time(), self._revision(), changes)
        if changes or first:
            self.last_change = attempt
        return attempt

    async def _prepare(self, changes: Diff, manifest: Manifest) -> None:
        """Load what is to replace loaded models. Raises ManifestError, with everything as it was; Superseded."""
        wanted = {n: manifest.entries[n] for n in changes.changed if self._is_in_use(n) or n in self._prepared}
        kept = {n for n, i in self._prepared.items() if n in wanted and i.identity == wanted[n].identity}
        await self._discard(self._prepared.keys() - kept)
        if not wanted:
            return
        self.preparing = True
        try:
            results = await self._unless_superseded([self._prepare_one(entry) for entry in wanted.values()])
        finally:
            self.preparing = False
        problems = []
        for entry, failure in zip(wanted.values(), results, strict=True):
            if isinstance(failure, ModelUnavailable):
                problems.append(manifest.problem(entry.id, f"the model does not load: {failure.message}"))
            elif failure is not None:
                raise failure
        if problems:
            raise ManifestError(problems)

    def _is_in_use(self, entry_id: str) -> bool:
        return self.registry.instance(entry_id).state in ("ready", "loading")

    async def _unless_superseded(self, loads: Sequence[Coroutine[None, None, None]]) -> list[BaseException | None]:
        """The outcome of each. Raises Superseded when a trigger comes first; what loads goes on loading then."""
        work = asyncio.gather(*loads, return_exceptions=True)
        again = asyncio.create_task(self._wanted.wait(), name="another trigger")
        either: list[asyncio.Future[Any]] = [work, again]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Superseded
            return work.result()
        finally:
            work.cancel()
            again.cancel()
            await asyncio.gather(work, again, return_exceptions=True)

    async def _prepare_one(self, entry: Entry) -> None:
        """Load an entry's new instance: beside the old one (warm), or after the old one has ended (cold)."""
        if entry.options.swap == "warm":
            await self._new_instance(entry).load()
            return
        old = self.registry.instance(entry.id)
        new = self._new_instance(entry)
        old.hold(_SWAP)
        try:
            await self._drain(old)
            await old.unload()
            await new.load()
        except asyncio.CancelledError:
            raise  # superseded: it stays held for the next pass, which goes on with it or gives it up
        except BaseException:
            self._reopen(entry.id)
            raise

    async def _drain(self, old: Instance) -> None:
        """Wait for running requests, at most as long as a shutdown would. Raises LoadFailed."""
        seconds = self.registry.drain_seconds
        log.info("%s: cold swap: it ends before the new one loads; running requests: %d", old.name, old.leases)
        try:
            async with asyncio.timeout(seconds):
                await old.drained()
        except TimeoutError:
            raise LoadFailed(
                f"running requests ({old.leases}) did not end within {seconds:g} s (drain_seconds); it was not replaced"
            ) from None

    def _reopen(self, entry_id: str) -> None:
        """Let the current instance take requests again; it loads again at the first, or at once where it is pinned.

        A commit does it by retiring.
        """
        snapshot = self.registry.snapshot
        old = snapshot.instances.get(entry_id) if snapshot else None
        if old is not None and old.release(_SWAP) and old.pinned:
            old.begin_loading()

    def _new_instance(self, entry: Entry) -> Instance:
        new = self._prepared.setdefault(entry.id, self.registry.new_instance(entry))
        new.stall_seconds = entry.options.stall_seconds
        return new

    def instances(self) -> list[Instance]:
        """All that there are: those of the registry, and those that are prepared for it."""
        return [*self.registry.all_instances(), *self._prepared.values()]

    async def _discard(self, entry_ids: Iterable[str]) -> None:
        """Give up instances that no manifest wants any more."""
        names = list(entry_ids)
        for name in names:
            self._reopen(name)
        await asyncio.gather(*(self._prepared.pop(name).unload() for name in names))
