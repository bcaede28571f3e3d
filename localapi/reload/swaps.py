"""Loaded models that are being replaced: what loads for them, what did not load, and when that is tried again.

Until what replaces it is ready, an entry stays as it was: only the entry whose model does not load, and nothing else
of the same edit.
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
from localapi.runtime.backoff import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from localapi.runtime.instance import Instance, Pause
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Loading

log = logging.getLogger(__name__)


class Superseded(Exception):  # nothing went wrong: the manifest changed again while models were loading
    """The pass begins anew; what loads goes on for the next one."""


@dataclass(frozen=True)
class Outcome:
    """What became of the entries that were to be replaced, by their ids."""

    ready: frozenset[str] = frozenset()
    """Loaded: they can be replaced."""
    slow: frozenset[str] = frozenset()
    """They still load."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """They did not load, and why."""

    @property
    def kept(self) -> frozenset[str]:
        """They stay as they were."""
        return self.slow | self.failed.keys()


@dataclass(frozen=True)
class Swap:
    """How far the replacement of one entry is."""

    state: Literal["loading", "failed"]
    entry: Entry
    """The one that is to come."""
    progress: Loading | None = None
    error: str | None = None
    failures: int = 0
    next_try_at: float | None = None
    """Unix time."""


@dataclass
class _Failed:
    """An entry that did not load."""

    entry: Entry
    error: ModelUnavailable
    count: int
    due: float
    """When to try again, by the monotonic clock."""

    @property
    def pause(self) -> float:
        """Seconds until the next try."""
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(self.count - 1, 30), LONGEST_PAUSE_SECONDS)


class Swaps:
    """Of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._prepared: dict[str, Instance] = {}
        """Instances that load or are loaded, for entries that are not replaced yet."""
        self._coming: dict[str, Entry] = {}
        """Their entries."""
        self._failed: dict[str, _Failed] = {}

    def among(self, changed: Iterable[Entry]) -> list[Entry]:
        """The changed entries that are replaced when their new model is loaded; the others at once."""
        return [e for e in changed if self._is_in_use(e.id) or e.id in self._prepared or self._failure(e) is not None]

    def loads(self, entry: Entry) -> bool:
        """Whether what is to replace an entry loads already, or is left alone."""
        prepared = self._prepared.get(entry.id)
        return self._failure(entry) is not None if prepared is None else prepared.identity == entry.identity

    def of(self, entry_id: str) -> Swap | None:
        """The swap of an entry; None where nothing is to replace it."""
        failed, prepared = self._failed.get(entry_id), self._prepared.get(entry_id)
        error, count = (failed.error.message, failed.count) if failed else (None, 0)
        if prepared is not None:
            return Swap("loading", self._coming[entry_id], prepared.progress, error, count)
        if failed is None:
            return None
        at = time.time() + max(0.0, failed.due - time.monotonic())
        return Swap("failed", failed.entry, None, error, count, round(at))

    @property
    def instances(self) -> list[Instance]:
        """Those that load or are loaded."""
        return list(self._prepared.values())

    @property
    def warnings(self) -> list[str]:
        """What did not load, for people."""
        return [
            f"{entry_id} stays as it was, because what should replace it did not load: {failed.error.message} "
            "It is tried again from time to time, and at once by POST /admin/reload."
            for entry_id, failed in self._failed.items()
        ]

    @property
    def seconds_to_next_try(self) -> float | None:
        """None where there is nothing to try."""
        dues = [failed.due for failed in self._failed.values()]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def room_may_have_come(self) -> None:
        """Try soon what found no room: the manifest has changed."""
        for failed in self._failed.values():
            if isinstance(failed.error, NoRoom):
                failed.due = time.monotonic()

    async def prepare(
        self, entries: Collection[Entry], superseded: asyncio.Event, *, at_once: bool, patience: float | None
    ) -> Outcome:
        """Load what is to replace loaded models, for as long as `patience` says. Raises Superseded.

        What failed lately is left alone for a while, unless it is to be tried `at_once`.
        """
        wanted = {entry.id: entry for entry in entries}
        self._failed = {n: f for n, f in self._failed.items() if n in wanted and self._failure(wanted[n]) is f}
        due = {name: entry for name, entry in wanted.items() if at_once or self._is_due(entry)}
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
        """Instances that are ready: they are the registry's now."""
        taken = {name: self._prepared.pop(name) for name in entry_ids}
        for name in taken:
            self._coming.pop(name)
            self._failed.pop(name, None)
        return taken

    async def discard(self, entry_ids: Iterable[str] | None = None) -> None:
        """Give up instances that no manifest wants any more; without ids, all of them."""
        names = list(self._prepared if entry_ids is None else entry_ids)
        for name in names:
            self._reopen(name)
            self._coming.pop(name)
        await asyncio.gather(*(self._prepared.pop(name).close() for name in names))

    def _is_in_use(self, entry_id: str) -> bool:
        return self._registry.instance(entry_id).state in ("ready", "loading")

    def _failure(self, entry: Entry) -> _Failed | None:
        """How the entry failed, if it is still the same that is to be loaded."""
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
            failed.due = time.monotonic() + failed.pause  # the old one would have to end for each try
            return False
        return True

    def _note(self, entry: Entry, error: ModelUnavailable) -> None:
        before = self._failure(entry)
        failed = _Failed(entry, error, before.count + 1 if before else 1, 0.0)
        failed.due = time.monotonic() + failed.pause
        self._failed[entry.id] = failed
        level = logging.ERROR if before is None else logging.DEBUG
        log.log(level, "%s: not replaced, the old one answers on: %s", entry.id, error.message)

    async def _load(self, entry: Entry) -> None:
        """Load an entry's new instance: beside the old one (warm), or after the old one has ended (cold)."""
        if entry.options.swap == "warm":
            await self._new_instance(entry).load()
            return
        old = self._registry.instance(entry.id)
        new = self._new_instance(entry)
        old.pause(Pause.SWAP)
        try:
            await self._drain(old)
            await old.unload()
            await new.load()
        except asyncio.CancelledError:
            raise  # it stays held for the next pass, which goes on with it or gives it up
        except BaseException:
            self._reopen(entry.id)
            raise

    async def _drain(self, old: Instance) -> None:
        """Wait for running requests, at most as long as a shutdown would. Raises LoadFailed."""
        seconds = self._registry.drain_seconds
        log.info("%s: cold swap: it ends before the new one loads; running requests: %d", old.name, old.leases)
        try:
            async with asyncio.timeout(seconds):
                await old.idle()
        except TimeoutError:
            raise LoadFailed(
                f"Running requests ({old.leases}) did not end within {seconds:g} s (drain_seconds)."
            ) from None

    def _reopen(self, entry_id: str) -> None:
        """Let the current instance take requests again; it loads again at the first, or at once where it is pinned.

        A commit does it by retiring.
        """
        snapshot = self._registry.snapshot
        old = snapshot.instances.get(entry_id) if snapshot else None
        if old is not None and old.resume(Pause.SWAP) and old.pinned:
            old.begin_loading()

    def _new_instance(self, entry: Entry) -> Instance:
        new = self._prepared.setdefault(entry.id, self._registry.new_instance(entry))
        self._coming[entry.id] = entry
        new.stall_seconds = entry.options.stall_seconds
        return new


async def _finished(loads: Collection[asyncio.Task[None]], superseded: asyncio.Event, patience: float | None) -> None:
    """Wait until all are done, or for so long: then the others are cancelled. Raises Superseded."""
    if not loads:
        return
    again = asyncio.create_task(superseded.wait(), name="another trigger")
    all_done = asyncio.create_task(_all(loads), name="all loads")
    try:
        await asyncio.wait([all_done, again], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if again.done() and not all_done.done():
            raise Superseded
    finally:
        for task in (all_done, again, *loads):
            task.cancel()
        await asyncio.gather(all_done, again, *loads, return_exceptions=True)


async def _all(loads: Collection[asyncio.Task[None]]) -> None:
    await asyncio.wait(loads)
