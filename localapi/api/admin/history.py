"""`GET /admin/history`: the usage of models and API keys by hours and by days, over restarts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct
from quart import Blueprint, Response

from localapi.api.admin.model_status import memory_of
from localapi.api.operation import JSON, Operation, Operations
from localapi.http.replies import json_reply
from localapi.kinds.chat import TIME_PER_OUTPUT_TOKEN
from localapi.observability.counters import Counters
from localapi.observability.usage_history import MEMORY, Amount, Period, UsageHistory, UsageMeter
from localapi.runtime.registry import Registry
from localapi.system.folders import state_folder
from localapi.system.threads import aside
from localapi.system.whole_file import locked, write_whole

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
"""Interval at which counters and memory are looked at."""
WRITE_SECONDS: Final = 300.0
"""Interval at which the file is written if something has changed."""
CLOSE_SECONDS: Final = 2.0
MOST_FILES: Final = 20
"""Manifests of which a history is kept; the one that was written the longest time ago goes first."""
_AMOUNTS = Meta(
    description="Amounts by name and count: requests, the counters of /metrics, memory_bytes (the largest), and "
    "answers and token_seconds, whose quotient is tokens per second."
)


class PeriodReply(Struct, kw_only=True):
    """An hour or a day."""

    start: Annotated[int, Meta(description="Unix time.")]
    memory_bytes: Annotated[float, Meta(description="The largest amount that all models together had.")]
    models: Annotated[dict[str, dict[str, float]], _AMOUNTS]
    keys: Annotated[dict[str, dict[str, float]], _AMOUNTS]


class HistoryReply(Struct, kw_only=True):
    """The last days, the oldest first. Periods in which nothing was loaded or asked are left out."""

    enabled: Annotated[bool, Meta(description="False if the manifest has `history: false`.")]
    file: Annotated[str | None, Meta(description="Where it is kept; null if it cannot be.")]
    hours: Annotated[list[PeriodReply], Meta(description="Seven days.")]
    days: Annotated[list[PeriodReply], Meta(description="Ninety days; they begin at midnight of the server's clock.")]


class UsageKeeper:
    """Keeps the history of one manifest in a file, which several servers may share."""

    def __init__(self, registry: Registry, counters: Counters) -> None:
        self.enabled = False
        self.file: Path | None = None
        self._registry = registry
        self._meter = UsageMeter(counters, TIME_PER_OUTPUT_TOKEN.name)
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
        """Take what has been counted since the last time."""
        amounts = self._meter.read()
        if self.enabled:
            held: list[Amount] = [("models", name, MEMORY, size) for name, size in self._memory().items() if size]
            if amounts or held:
                self._unsaved.add(time.time(), sum(size for *_, size in held), [*amounts, *held])

    async def run(self) -> None:
        """Look at the counters again and again, and write the file now and then."""
        await self._save()
        written = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._take()
            if time.monotonic() - written >= WRITE_SECONDS:
                await self._save()
                written = time.monotonic()

    async def close(self) -> None:
        """Write what is left, if that is possible within a moment."""
        self._take()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._save()

    async def _save(self) -> None:
        """Read the file, and write it with what is new; keep that if it cannot be written."""
        file, new = self.file, self._unsaved
        if file is None or not self.enabled:
            return
        self._unsaved = UsageHistory()
        try:
            saved = await aside(lambda: _merged(file, new))
        except OSError as error:
            self._unsaved = new.merge(self._unsaved)
            if not self._failed:
                log.warning("the history of usage cannot be kept in %s: %s", file, error)
            self._failed = True
        else:
            self._failed = False
            if self.enabled:
                self._saved = saved

    def _memory(self) -> Mapping[str, int]:
        """Return the memory of each loaded model, as far as it is known."""
        instances = self._registry.snapshot.instances
        return {name: memory_of(self._registry, instance) or 0 for name, instance in instances.items()}


def _merged(file: Path, new: UsageHistory) -> UsageHistory:
    """Return what a file and `new` hold together, after writing that. Raise OSError."""
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
            log.warning("the history of usage in %s was unreadable and begins anew; the file is now *.broken", file)
            saved = UsageHistory()
        if new.days:
            write_whole(file, saved.merge(new).dump())
            _sweep(file.parent)
    return saved


def _sweep(folder: Path) -> None:
    """Delete the histories of manifests that have not been served for the longest time."""
    files = sorted((path for path in folder.iterdir() if path.suffix in (".json", ".broken")), key=_changed_at)
    for path in files[:-MOST_FILES]:
        path.unlink(missing_ok=True)


def _changed_at(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def routes(usage: UsageKeeper) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("history", __name__)

    @blueprint.get("/admin/history")
    async def history() -> Response:
        found = usage.history()
        return json_reply(
            HistoryReply(
                enabled=usage.enabled,
                file=str(usage.file) if usage.file is not None else None,
                hours=[_described(each) for each in found.hours],
                days=[_described(each) for each in found.days],
            )
        )

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/admin/history"): Operation(
        summary="What models and keys were used for, by hours and days.", content={JSON: HistoryReply}
    )
}


def _described(period: Period) -> PeriodReply:
    return PeriodReply(start=period.start, memory_bytes=period.memory_bytes, models=period.models, keys=period.keys)
