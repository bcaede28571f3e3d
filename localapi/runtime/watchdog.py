"""Looks at every worker once a second, from outside: measures its memory, and ends it where it hangs.

A step of a model may take long and tell nothing meanwhile: a prompt of thousands of tokens, a sentence on a slow
processor. So a worker that computes is left alone for much longer than one that does not; and while it loads, for ever.
A worker that was asked for nothing and computes all the same is stuck in something that nobody waits for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from localapi.runtime.instance import Instance
from localapi.runtime.memory import Memory
from localapi.system.process_usage import Usage, usage

log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
COMPUTING_FACTOR: Final = 5
"""How many times as long a worker may go without ending a step while it computes."""
COMPUTING_SHARE: Final = 0.005
"""Of one core: whoever uses more computes. Idle threads that only look around use less."""
IDLE_SHARE: Final = 0.5
"""Of one core: a worker that was asked for nothing uses less, also while it saves prefixes to disk."""
LEAST_CPU_SECONDS: Final = 0.01
"""What the system can measure. A worker that loads may wait for the network, and computes next to nothing."""


@dataclass
class Watched:
    """A worker that has something to do and does not say anything."""

    silent_since: float
    """When it last ended a step, or reported that it loads. By the monotonic clock, like the others."""
    alive_at: float
    """When it last computed."""
    seen_at: float
    cpu_seconds: float
    """At `seen_at`."""


@dataclass
class Idle:
    """A worker that has nothing to do."""

    computing_since: float
    """When it last did as good as nothing, or began to have nothing to do."""
    seen_at: float
    cpu_seconds: float
    """At `seen_at`."""


class Supervisor:
    """Of all instances that there are, also those that no manifest wants any more or not yet."""

    def __init__(self, instances: Callable[[], Iterable[Instance]], memory: Memory) -> None:
        self._instances = instances
        self._memory = memory
        self._watched: dict[int, Watched] = {}
        self._idle: dict[int, Idle] = {}

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.look()
            except Exception:  # ours to mend; the models run on
                log.exception("the workers could not be looked at")

    async def look(self) -> None:
        """Look once."""
        working = {pid: instance for instance in self._instances() if (pid := instance.worker_pid) is not None}
        used = await usage(working.keys())
        self._memory.note(used)
        self._memory.shrink()
        now = time.monotonic()
        for pid in self._watched.keys() - used.keys():
            del self._watched[pid]
        for pid in self._idle.keys() - used.keys():
            del self._idle[pid]
        for pid, instance in working.items():
            if pid in used and instance.worker_pid == pid:
                self._judge(pid, instance, used[pid], now)

    def _judge(self, pid: int, instance: Instance, used: Usage, now: float) -> None:
        """End the worker if it hangs."""
        since, limit = instance.silent_since, instance.stall_seconds
        if since is None or limit is None:
            self._watched.pop(pid, None)
        if since is not None or limit is None:
            self._idle.pop(pid, None)
        if limit is None:
            return
        if since is None:
            self._judge_idle(pid, instance, used, now, limit)
            return
        watched = self._watched.get(pid)
        if watched is None or watched.silent_since != since:
            self._watched[pid] = Watched(since, since, now, used.cpu_seconds)
            return
        if now - watched.seen_at >= limit / 4:
            least = 0.0 if instance.progress is not None else COMPUTING_SHARE * (now - watched.seen_at)
            if used.cpu_seconds - watched.cpu_seconds >= max(least, LEAST_CPU_SECONDS):
                watched.alive_at = now
            watched.seen_at, watched.cpu_seconds = now, used.cpu_seconds
        if now - watched.alive_at >= limit:
            instance.end_worker(
                f"hung: it did nothing for {now - watched.alive_at:.0f} s (stall_seconds) and was ended"
            )
        elif now - since >= COMPUTING_FACTOR * limit and instance.progress is None:
            instance.end_worker(
                f"hung: it computed for {now - since:.0f} s in one step ({COMPUTING_FACTOR} times stall_seconds) and "
                "was ended"
            )

    def _judge_idle(self, pid: int, instance: Instance, used: Usage, now: float, limit: float) -> None:
        """End the worker if it has nothing to do, and computes all the same for as long as the limit."""
        idle = self._idle.get(pid)
        if idle is None:
            self._idle[pid] = Idle(now, now, used.cpu_seconds)
            return
        if now - idle.seen_at >= limit / 4:
            if used.cpu_seconds - idle.cpu_seconds < IDLE_SHARE * (now - idle.seen_at):
                idle.computing_since = now
            idle.seen_at, idle.cpu_seconds = now, used.cpu_seconds
            if now - idle.computing_since >= limit:
                instance.end_worker(
                    f"hung: it computed for {now - idle.computing_since:.0f} s with nothing to do (stall_seconds) and "
                    "was ended"
                )
