"""File that stores the usage history of one manifest; several servers may share it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from localapi.observability.counters import Counters
from localapi.observability.usage_history import MEMORY, Amount, UsageHistory, UsageMeter
from localapi.system.atomic_file import locked, write_whole
from localapi.system.folders import state_folder
from localapi.system.threads import aside

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
"""Interval for reading counters and memory."""
WRITE_SECONDS: Final = 300.0
"""Interval for writing the file if something has changed."""
CLOSE_SECONDS: Final = 2.0
MOST_FILES: Final = 20
"""Maximum manifests whose history is kept; the least recently written one is deleted first."""


class UsageKeeper:
    """Keeper of the history of one manifest."""

    def __init__(self, counters: Counters, speed_metric: str, memory: Callable[[], Mapping[str, int]]) -> None:
        """Create a keeper; for `speed_metric` see `UsageMeter`.

        `memory` returns the memory of each loaded model, if known.
        """
        self.enabled = False
        self.file: Path | None = None
        self._memory = memory
        self._meter = UsageMeter(counters, speed_metric)
        self._saved = UsageHistory()
        """Content of the file when it was last read or written."""
        self._unsaved = UsageHistory()
        self._failed = False

    def follow(self, manifest: Path | None, *, enabled: bool) -> None:
        """Keep the history of this manifest from now on, or none."""
        folder = state_folder("history")
        name = hashlib.sha256(os.fsencode(os.path.abspath(manifest or "."))).hexdigest()[:16]
        self.file = folder / f"{name}.json" if folder is not None else None
        if self.enabled and not enabled:
            self._saved, self._unsaved = UsageHistory(), UsageHistory()
        self.enabled = enabled

    def history(self) -> UsageHistory:
        """Return everything that has been counted until now."""
        self._take()
        return UsageHistory().merge(self._saved).merge(self._unsaved)

    def _take(self) -> None:
        """Add what has been counted since the last time."""
        amounts = self._meter.read()
        if self.enabled:
            held: list[Amount] = [("models", name, MEMORY, size) for name, size in self._memory().items() if size]
            if amounts or held:
                self._unsaved.add(time.time(), sum(size for *_, size in held), [*amounts, *held])

    async def run(self) -> None:
        """Read the counters regularly, and write the file from time to time."""
        await self._save()
        written = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._take()
            if time.monotonic() - written >= WRITE_SECONDS:
                await self._save()
                written = time.monotonic()

    async def close(self) -> None:
        """Write the rest, if that is possible within a moment."""
        self._take()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._save()

    async def _save(self) -> None:
        """Merge the file with what is new, and write it; keep what is new if that fails."""
        file, new = self.file, self._unsaved
        if file is None or not self.enabled:
            return
        self._unsaved = UsageHistory()
        try:
            saved = await aside(lambda: _merged(file, new))
        except OSError as error:
            self._unsaved = new.merge(self._unsaved)
            if not self._failed:
                log.warning("the usage history cannot be stored in %s: %s", file, error)
            self._failed = True
        else:
            self._failed = False
            if self.enabled:
                self._saved = saved


def _merged(file: Path, new: UsageHistory) -> UsageHistory:
    """Return a file merged with `new`, after writing it. Raise OSError."""
    if not new.days and not file.exists():
        return UsageHistory()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(file.parent):
        try:
            saved = UsageHistory.load(file.read_bytes())
        except FileNotFoundError:
            saved = UsageHistory()
        except ValueError:
            file.replace(file.with_suffix(".broken"))
            log.warning("the usage history in %s was unreadable and starts anew; the old file is now *.broken", file)
            saved = UsageHistory()
        if new.days:
            write_whole(file, saved.merge(new).dump())
            _sweep(file.parent)
    return saved


def _sweep(folder: Path) -> None:
    """Delete the histories of the least recently served manifests."""
    files = sorted((path for path in folder.iterdir() if path.suffix in (".json", ".broken")), key=_changed_at)
    for path in files[:-MOST_FILES]:
        path.unlink(missing_ok=True)


def _changed_at(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
