"""Replacements of loaded models: those that are loading, those that failed to load, and when they are retried.

Until its replacement is ready, an entry is left unchanged. An entry whose new model does not load does not delay the
rest of the edit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from localapi.errors import LoadFailed, ModelUnavailable, NoRoom
from localapi.manifest import Entry
from localapi.runtime.backoff import TOLERATED, pause_seconds
from localapi.runtime.gate import Pause
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Loading

log = logging.getLogger(__name__)


class Superseded(Exception):  # not an error
    """The manifest changed again while models were loading.

    The pass starts over, and the loads continue for the next pass.
    """


@dataclass(frozen=True)
class Outcome:
    """The ids of the entries to be replaced, by result."""

    ready: frozenset[str] = frozenset()
    """Entries whose new models are loaded, so that they can be replaced."""
    slow: frozenset[str] = frozenset()
    """Entries whose new models are still loading."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Entries whose new models did not load, with the errors."""

    @property
    def kept(self) -> frozenset[str]:
        """Entries that are left unchanged."""
        return self.slow | self.failed.keys()


@dataclass(frozen=True)
class Swap:
    """The replacement of one entry."""

    state: Literal["loading", "failed"]
    entry: Entry
    """New entry."""
    progress: Loading | None = None
    error: str | None = None
    failures: int = 0
    next_try_at: float | None = None
    """Unix time."""


@dataclass
class _Failed:
    """Entry whose new model did not load."""

    entry: Entry
    error: ModelUnavailable
    count: int
    due: float
    """Monotonic time of the next attempt."""

    @property
    def pause(self) -> float:
        """Seconds until the next attempt."""
        return pause_seconds(TOLERATED + self.count - 1)  # the first failure already causes a pause


class Swaps:
    """Replacements in one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._prepared: dict[str, Instance] = {}
        """Instances that are loading or loaded, for entries that are not replaced yet."""
        self._new_entries: dict[str, Entry] = {}
        """New entries of these instances."""
        self._failed: dict[str, _Failed] = {}

    def to_wait_for(self, changed: Iterable[Entry]) -> list[Entry]:
        """Return the changed entries that are replaced only once their new model is loaded."""
        loading = [each for each in changed if not each.options.is_pool and each.peer is None]
        return [e for e in loading if self._is_in_use(e.id) or e.id in self._prepared or self._failure(e) is not None]

    def has_begun(self, entry: Entry) -> bool:
        """Return True if an entry's replacement is already loading, or has failed."""
        prepared = self._prepared.get(entry.id)
        return self._failure(entry) is not None if prepared is None else prepared.identity == entry.identity

    def of(self, entry_id: str) -> Swap | None:
        """Return the replacement of an entry, if there is one."""
        failed, prepared = self._failed.get(entry_id), self._prepared.get(entry_id)
        if prepared is None and failed is None:
            return None
        error, count = (failed.error.message, failed.count) if failed else (None, 0)
        if prepared is not None:
            return Swap("loading", self._new_entries[entry_id], prepared.progress, error, count)
        assert failed is not None  # noqa: S101  # one of both is there
        at = time.time() + max(0.0, failed.due - time.monotonic())
        return Swap("failed", failed.entry, None, error, count, round(at))

    @property
    def instances(self) -> list[Instance]:
        """Instances that are loading or loaded."""
        return list(self._prepared.values())

    @property
    def warnings(self) -> list[str]:
        """Warnings about replacements that did not load."""
        return [
            f"{entry_id} was not replaced, because the new model did not load: {failed.error.message} "
            "It is retried from time to time, and at once by POST /admin/reload."
            for entry_id, failed in self._failed.items()
        ]

    @property
    def seconds_to_next_try(self) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        dues = [failed.due for failed in self._failed.values()]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def retry_for_memory(self) -> None:
        """Retry soon the loads that found no memory: the manifest has changed."""
        for failed in self._failed.values():
            if isinstance(failed.error, NoRoom):
                failed.due = time.monotonic()

    async def prepare(
        self, entries: Collection[Entry], superseded: asyncio.Event, *, retry_now: bool, patience: float | None
    ) -> Outcome:
        """Load the replacements, and wait for them at most `patience` seconds. Raise Superseded.

        Recent failures are skipped for a while, unless `retry_now` is set.
        """
        wanted = {entry.id: entry for entry in entries}
        self._failed = {n: f for n, f in self._failed.items() if n in wanted and self._failure(wanted[n]) is f}
        due = {name: entry for name, entry in wanted.items() if retry_now or self._is_due(entry)}
        kept = {n for n, each in self._prepared.items() if n in due and each.identity == due[n].identity}
        await self.discard(self._prepared.keys() - kept)
        loads = {name: asyncio.create_task(self._load(entry), name=f"swap {name}") for name, entry in due.items()}
        await _finished(loads.values(), superseded, patience)
        ready, slow = set(), set()
        for name, task in loads.items():
            if task.cancelled():
                slow.add(name)
            elif (error := task.exception()) is None:
                ready.add(name)
            elif isinstance(error, ModelUnavailable):
                self._note(due[name], error)
            else:
                raise error
        await self.discard(due.keys() - ready - slow)
        failed = {name: failed.error.message for name, failed in self._failed.items() if name not in ready | slow}
        return Outcome(frozenset(ready), frozenset(slow), failed)

    def take(self, entry_ids: Iterable[str]) -> dict[str, Instance]:
        """Hand over the ready instances."""
        taken = {name: self._prepared.pop(name) for name in entry_ids}
        for name in taken:
            self._new_entries.pop(name)
            self._failed.pop(name, None)
        return taken

    async def discard(self, entry_ids: Iterable[str] | None = None) -> None:
        """Close instances that no manifest needs any more; without ids, all of them."""
        names = list(self._prepared if entry_ids is None else entry_ids)
        for name in names:
            self._resume(name)
            self._new_entries.pop(name)
        await asyncio.gather(*(self._prepared.pop(name).close() for name in names))

    def _is_in_use(self, entry_id: str) -> bool:
        return self._registry.instance(entry_id).state in ("ready", "loading")

    def _failure(self, entry: Entry) -> _Failed | None:
        """Return how an entry failed, if it would load the same again."""
        failed = self._failed.get(entry.id)
        same = failed is not None and (failed.entry.kind, failed.entry.identity) == (entry.kind, entry.identity)
        return failed if same else None

    def _is_due(self, entry: Entry) -> bool:
        failed = self._failure(entry)
        if failed is None or entry.id in self._prepared:
            return True
        if time.monotonic() < failed.due:
            return False
        if entry.options.swap == "cold" and self._is_in_use(entry.id):
            failed.due = time.monotonic() + failed.pause  # the old one would have to end for each attempt
            return False
        return True

    def _note(self, entry: Entry, error: ModelUnavailable) -> None:
        before = self._failure(entry)
        failed = _Failed(entry, error, before.count + 1 if before else 1, 0.0)
        failed.due = time.monotonic() + failed.pause
        self._failed[entry.id] = failed
        level = logging.ERROR if before is None else logging.DEBUG
        log.log(level, "%s: not replaced, the old one is still serving: %s", entry.id, error.message)

    async def _load(self, entry: Entry) -> None:
        """Load an entry's new instance: beside the old one (warm), or after the old one has been unloaded (cold)."""
        if entry.options.swap == "warm":
            await self._new_instance(entry).load()
            return
        old = self._registry.instance(entry.id)
        new = self._new_instance(entry)
        old.gate.close(Pause.SWAP)
        try:
            await self._wait_until_idle(old)
            await old.unload()
            await new.load()
        except asyncio.CancelledError:
            raise  # it remains paused for the next pass, which continues with it or drops it
        except BaseException:
            self._resume(entry.id)
            raise

    async def _wait_until_idle(self, old: Instance) -> None:
        """Wait for running requests, at most `drain_seconds`. Raise LoadFailed."""
        seconds = self._registry.drain_seconds
        log.info("%s: cold swap: it ends before the new one loads; running requests: %d", old.name, old.leases)
        try:
            async with asyncio.timeout(seconds):
                await old.idle()
        except TimeoutError:
            raise LoadFailed(
                f"Running requests ({old.leases}) did not end within {seconds:g} s (drain_seconds)."
            ) from None

    def _resume(self, entry_id: str) -> None:
        """Let the current instance accept requests again. It loads at the first request, or at once if it is pinned.

        After a commit this is not needed, because retired instances are not paused.
        """
        old = self._registry.snapshot.instances.get(entry_id)
        if old is not None and old.gate.open(Pause.SWAP) and old.pinned:
            old.begin_loading()

    def _new_instance(self, entry: Entry) -> Instance:
        new = self._prepared.setdefault(entry.id, self._registry.new_instance(entry))
        self._new_entries[entry.id] = entry
        new.stall_seconds = entry.options.stall_seconds
        return new


async def _finished(loads: Collection[asyncio.Task[None]], superseded: asyncio.Event, patience: float | None) -> None:
    """Wait until all are done, at most `patience` seconds, and cancel the others. Raise Superseded."""
    if not loads:
        return
    again = asyncio.create_task(superseded.wait(), name="another trigger")
    all_done = asyncio.create_task(asyncio.wait(loads), name="all loads")
    try:
        await asyncio.wait([all_done, again], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if again.done() and not all_done.done():
            raise Superseded
    finally:
        for task in (all_done, again, *loads):
            task.cancel()
        await asyncio.gather(all_done, again, *loads, return_exceptions=True)
