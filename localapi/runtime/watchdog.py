"""The watchdog checks every engine once a second: it measures the memory, and ends an engine that hangs.

A step of a model may take long without a report: a prompt of thousands of tokens, a sentence on a slow processor. So an
engine that computes gets much more time than one that does not, and unlimited time while it loads. An engine that
computes although it has nothing to do also counts as hanging.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from localapi.backends.engine import Supervised, Vitals
from localapi.runtime.instance import Instance
from localapi.runtime.memory import Memory

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
COMPUTING_FACTOR: Final = 5
"""Factor on the time for a step if the engine computes."""
COMPUTING_SHARE: Final = 0.005
"""Share of one core above which an engine is considered to compute. Idle threads that poll use less."""
IDLE_SHARE: Final = 0.5
"""Share of one core that an idle engine stays below, even while it saves prefixes to disk."""
LEAST_CPU_SECONDS: Final = 0.01
"""Smallest time that systems measure. A loading engine that waits for the network hardly uses more."""


@dataclass(frozen=True)
class Record:
    """The watchdog's record of one engine, while its silence or idleness lasts."""

    silent_since: float | None
    """Time since when it has been silent; None if the engine is idle."""
    fine_at: float
    """Time at which it last behaved as expected: it computed while silent, or rested while idle."""
    measured_at: float
    cpu_seconds: float | None
    """Processor time at `measured_at`; None if unknown."""


def judge(before: Record | None, vitals: Vitals, limit: float | None, now: float) -> tuple[Record | None, str | None]:
    """Return what to remember of an engine, and the reason if it must be ended.

    `limit` is the entry's `stall_seconds`. Times are of the monotonic clock.
    """
    if limit is None:
        return None, None
    if vitals.silent_since is not None:
        return _judge_silent(before, vitals, vitals.silent_since, limit, now)
    if vitals.idle and vitals.cpu_seconds is not None:
        return _judge_idle(before, vitals.cpu_seconds, limit, now)
    return None, None


def _judge_silent(
    before: Record | None, vitals: Vitals, since: float, limit: float, now: float
) -> tuple[Record, str | None]:
    cpu_seconds = vitals.cpu_seconds
    if before is None or before.silent_since != since:
        return Record(since, since, now, cpu_seconds), None
    record = before
    elapsed = now - before.measured_at
    if elapsed >= limit / 4:
        least = LEAST_CPU_SECONDS if vitals.loading else max(LEAST_CPU_SECONDS, COMPUTING_SHARE * elapsed)
        computed = True  # assumed if the processor time is unknown
        if cpu_seconds is not None and before.cpu_seconds is not None:
            computed = cpu_seconds - before.cpu_seconds >= least and not vitals.waits_computing
        record = Record(since, now if computed else before.fine_at, now, cpu_seconds)
    if now - record.fine_at >= limit:
        return record, f"hung: it did nothing for {now - record.fine_at:.0f} s (stall_seconds) and was ended"
    if now - since >= COMPUTING_FACTOR * limit and not vitals.loading:
        return record, (
            f"hung: it computed for {now - since:.0f} s in one step ({COMPUTING_FACTOR} times stall_seconds) and was "
            "ended"
        )
    return record, None


def _judge_idle(before: Record | None, cpu_seconds: float, limit: float, now: float) -> tuple[Record, str | None]:
    if before is None or before.silent_since is not None or before.cpu_seconds is None:
        return Record(None, now, now, cpu_seconds), None
    elapsed = now - before.measured_at
    if elapsed < limit / 4:
        return before, None
    rested = cpu_seconds - before.cpu_seconds < IDLE_SHARE * elapsed
    record = Record(None, now if rested else before.fine_at, now, cpu_seconds)
    if now - record.fine_at >= limit:
        return record, (
            f"hung: it computed for {now - record.fine_at:.0f} s with nothing to do (stall_seconds) and was ended"
        )
    return record, None


class Watchdog:
    """Watchdog of all instances, including those that are retiring or being prepared."""

    def __init__(self, instances: Callable[[], Iterable[Instance]], memory: Memory) -> None:
        self._instances = instances
        self._memory = memory
        self._records: dict[Supervised, Record] = {}

    async def run(self) -> None:
        """Check every second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                self.check()
            except Exception:  # a bug here must not end the models
                log.exception("the engines could not be checked")

    def check(self) -> None:
        """Measure all engines once, and end those that hang."""
        instances = list(self._instances())
        self._memory.note(instances)
        self._memory.shrink()
        now = time.monotonic()
        records: dict[Supervised, Record] = {}
        for instance in instances:
            for engine in instance.all_supervised:
                record, fault = judge(self._records.get(engine), engine.vitals(), instance.stall_seconds, now)
                if record is not None:
                    records[engine] = record
                if fault is not None:
                    engine.end(fault)
        self._records = records
