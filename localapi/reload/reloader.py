"""Make the server follow its manifest: settle → read → diff → prepare → commit → retire.

Level-triggered: a change only sets an event, and one task runs passes, so any number of changes during a pass cause
exactly one more. An invalid file is rejected; its errors are kept for `GET /status`. If the new model of an entry does
not load, only that entry is left unchanged, and its load is retried.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from localapi.errors import ManifestError, ModelUnavailable, Problem
from localapi.manifest import Manifest
from localapi.reload.diff import Diff, diff
from localapi.reload.settling import Loss, Settling, loss_of
from localapi.reload.swaps import Outcome, Superseded, Swaps
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry
from localapi.system.threads import aside
from localapi.system.timer import Timer

log = logging.getLogger(__name__)

T = TypeVar("T")

SLOW_SECONDS = 10.0
"""Time after which reading is slow, which happens only if a drive does not respond."""
RETRY_SECONDS = 5.0
"""Pause before a manifest is read again if the error was caused by the system, not by the file."""
PATIENCE_SECONDS = 30.0
"""Maximum time that the rest of an edit waits for new models, to be applied together with them."""
SHORT_PATIENCE_SECONDS = 2.0
"""Maximum time that another edit waits for models that were already loading."""
LOOK_SECONDS = 0.1
"""Interval for checking files that may be half-written."""


@dataclass(frozen=True)
class Attempt:
    """Result of one pass, for people."""

    at: float
    """Unix time."""
    revision: int
    """Revision that is active after the pass."""
    diff: Diff = field(default_factory=Diff)
    problems: tuple[Problem, ...] = ()
    not_loaded: Mapping[str, str] = field(default_factory=dict)
    """Errors of new models that did not load, by id. The manifest was applied without them."""
    unfinished: bool = False
    """True if replacements are still loading. The next pass continues with them."""

    @property
    def ok(self) -> bool:
        return not self.problems


class Reloader:
    """Task that runs the passes.

    `read` blocks and raises ManifestError; `settling` tells when the files are complete. `extend` adds entries from
    elsewhere, the models of peers; if the file is invalid, it extends the active manifest instead. `apply` is called
    with each committed manifest, for what does not concern a single model; `tell` is called with each attempt.
    """

    def __init__(
        self,
        registry: Registry,
        read: Callable[[], Manifest],
        *,
        settling: Settling | None = None,
        extend: Callable[[Manifest], Manifest] = lambda manifest: manifest,
        apply: Callable[[Manifest], None] = lambda _: None,
        tell: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self.registry = registry
        self.swaps = Swaps(registry)
        self.last_attempt: Attempt | None = None
        self.last_change: Attempt | None = None
        """Attempt that made the active revision."""
        self._read = read
        self._settling = settling or Settling(lambda: ())
        self._extend = extend
        self._apply = apply
        self._tell = tell
        self._wanted = asyncio.Event()
        self._waiters: list[asyncio.Future[Attempt]] = []
        self._answered = 0
        """Number of waiters that the current pass serves, because they asked before it read."""
        self._retry_now = False
        """True if the next pass also retries recent failures at once."""
        self.preparing = False
        self.reading_since: float | None = None
        """Unix time; None if the manifest is not being read."""
        self.reads_slowly = False
        """True if reading takes longer than a disk needs."""
        self._retry = Timer(self.trigger)

    def trigger(self) -> None:
        """Request a pass."""
        self._wanted.set()

    def trigger_by_hand(self) -> None:
        """Request a pass that also retries recent failures at once."""
        self._retry_now = True
        self.trigger()

    async def reload(self) -> Attempt:
        """Run a pass as `trigger_by_hand` does, and return its result.

        Raise ModelUnavailable if the server shuts down.
        """
        waiter: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.trigger_by_hand()
        return await waiter

    async def start(self) -> Attempt:
        """Run the first pass. Raise ManifestError."""
        attempt = await self._pass()
        if attempt.problems:
            raise ManifestError(attempt.problems)
        return attempt

    async def run(self) -> None:
        """Run a pass for each trigger, forever."""
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    attempt = await self._pass()
                except Superseded:
                    log.info("the manifest changed while models were loading; reading it again")
                    continue
                if attempt.unfinished:
                    continue
                waiters, self._waiters = self._waiters[: self._answered], self._waiters[self._answered :]
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(attempt)
        finally:
            self._retry.stop()
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_exception(ModelUnavailable("The server is shutting down."))
            await self.swaps.discard()

    async def _pass(self) -> Attempt:
        self._retry.stop()
        try:
            manifest = await self._settled()
            attempt = self._commit(manifest, await self._prepare(manifest))
        except ManifestError as error:
            await self.swaps.discard()
            attempt = self._refused(error)
            self._follow_peers()
        except Superseded:
            raise
        except Exception as error:  # a bug; the server must continue to follow the manifest
            log.exception("the manifest could not be applied")
            await self.swaps.discard()
            problem = Problem("manifest", f"could not be applied: {type(error).__name__}: {error}")
            attempt = self._refused(ManifestError([problem]))
        self.last_attempt = attempt
        self._tell(attempt)
        return attempt

    def _follow_peers(self) -> None:
        """Extend the active manifest anew: an invalid file is no reason to lose the models of peers."""
        current = self.served
        if current is not None and (extended := self._extend(current)) != current:
            changes = diff(current, extended)
            self.registry.commit(extended, {})
            self._apply(extended)
            log.info("revision %d, without the rejected edit: %s", self.registry.snapshot.revision, changes)

    async def _settled(self) -> Manifest:
        """Read the manifest when its files are complete. Raise ManifestError."""
        current = self.served
        beside = current.files_beside if current else ()
        while True:
            await self._still(beside, Loss.NOTHING)
            # Later requests for a pass are for the next one, because this pass reads now.
            self._wanted.clear()
            self._answered = len(self._waiters)
            manifest, error = None, None
            try:
                manifest = self._extend(await self._aside(self._read))
            except ManifestError as raised:
                error = raised
            else:
                beside = (*(current.files_beside if current else ()), *manifest.files_beside)
            entries = current.entries if current else ()
            instances = [self.registry.instance(name) for name in entries]
            used = [each.name for each in instances if each.pinned or each.state in ("ready", "loading")]
            loss = loss_of(current, manifest, used)
            if await self._still(beside, loss, until_changed=True):
                break
        self._settling.read()
        if manifest is None:
            raise error or AssertionError
        return manifest

    async def _still(self, beside: Sequence[Path], loss: Loss, *, until_changed: bool = False) -> bool:
        """Wait until the files have been unchanged for long enough. Return True if they did not change meanwhile."""
        began, told, same = time.monotonic(), False, True
        while True:
            same = await self._aside(lambda: self._settling.look(beside)) and same
            left = self._settling.wait(loss)
            if left <= 0 or (until_changed and not same):
                return same
            if not told and time.monotonic() - began > SLOW_SECONDS:
                told = True
                log.info("the manifest's files keep changing; they are read once they are unchanged for a moment")
            await asyncio.sleep(min(left, LOOK_SECONDS))

    async def _aside(self, call: Callable[[], T]) -> T:
        """Read files in a thread. If the thread never ends, nothing else waits for it, not even a shutdown."""
        self.reading_since = time.time()
        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._tell_of_a_slow_read)
        try:
            return await aside(call)
        finally:
            slow.cancel()
            self.reading_since, self.reads_slowly = None, False

    def _tell_of_a_slow_read(self) -> None:
        self.reads_slowly = True
        log.warning(
            "reading the manifest has taken %g s so far; is its drive connected? Still serving revision %d",
            SLOW_SECONDS,
            self.registry.snapshot.revision,
        )

    @property
    def served(self) -> Manifest | None:
        """Active manifest; None before the first one."""
        snapshot = self.registry.snapshot
        return snapshot.manifest if snapshot.revision else None

    def _refused(self, error: ManifestError) -> Attempt:
        revision = self.registry.snapshot.revision
        passing = all(problem.passing for problem in error.problems)
        if revision:
            again = passing and self.last_attempt is not None and _places(self.last_attempt) == _places(error)
            level = logging.DEBUG if again else logging.ERROR
            for problem in error.problems:
                log.log(level, "manifest rejected: %s", problem)
            log.log(level, "still serving revision %d", revision)
        if passing:
            # No file changes when a drive returns or a descriptor becomes free, so nothing would request a pass.
            self._retry.start(RETRY_SECONDS)
        return Attempt(time.time(), revision, problems=error.problems)

    async def _prepare(self, manifest: Manifest) -> Outcome:
        """Load the replacements of loaded models. Raise Superseded."""
        current = self.served
        if current is None:
            return Outcome()
        swapping = self.swaps.to_wait_for(manifest.entries[name] for name in diff(current, manifest).changed)
        others = diff(current, manifest.keeping(current, [entry.id for entry in swapping]))
        load_already = all(self.swaps.has_begun(entry) for entry in swapping)
        patience = SHORT_PATIENCE_SECONDS if load_already else PATIENCE_SECONDS
        retry_now, self._retry_now = self._retry_now, False
        self.preparing = bool(swapping)
        try:
            return await self.swaps.prepare(
                swapping, self._wanted, retry_now=retry_now, patience=patience if others else None
            )
        finally:
            self.preparing = False

    def _commit(self, manifest: Manifest, swaps: Outcome) -> Attempt:
        """Make the manifest current. If it equals the current one, there is no new revision."""
        current = self.served
        served = manifest.keeping(current, swaps.kept) if current else manifest
        changes = diff(current, served)
        was_refused = self.last_attempt is not None and not self.last_attempt.ok
        if changes or current is None:
            self.registry.commit(served, self.swaps.take(swaps.ready))
            self._apply(served)
            if current is not None:
                log.info("reloaded revision %d: %s", self.registry.snapshot.revision, changes)
                self.swaps.retry_for_memory()
        else:
            self.registry.refresh(served)
            level = logging.INFO if was_refused else logging.DEBUG
            log.log(level, "the manifest was read; it equals revision %d", self.registry.snapshot.revision)
        self._settling.serve()
        for problem in served.absent:
            if current is None or problem not in current.absent:
                log.warning("%s", problem)
        if served.absent:
            self._retry.start(RETRY_SECONDS)  # no file of the manifest changes when they return
        if swaps.slow:
            self.trigger()  # the rest of the manifest does not wait for them; the next pass handles them
        elif (seconds := self.swaps.seconds_to_next_try) is not None:
            self._retry.start(seconds)
        attempt = Attempt(
            time.time(), self.registry.snapshot.revision, changes, not_loaded=swaps.failed, unfinished=bool(swaps.slow)
        )
        if changes or current is None:
            self.last_change = attempt
        return attempt

    def instances(self) -> list[Instance]:
        """Return the instances of the registry, and those that are prepared for it."""
        return [*self.registry.all_instances(), *self.swaps.instances]


def _places(problems_of: Attempt | ManifestError) -> list[tuple[str, str, int | None, int | None]]:
    """Return the places of problems, which are equal if the same problems occur again."""
    return [(each.source, each.key, each.line, each.column) for each in problems_of.problems]
