"""Measure what a process uses, from outside."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

from localapi.system.threads import aside


@dataclass(frozen=True)
class Usage:
    """Resources of one process."""

    memory_bytes: int
    """Resident memory, including shared memory."""
    cpu_seconds: float
    """Processor time since it started."""


async def prepare() -> None:
    """Import psutil, which takes 20 ms of processor time: too long for the event loop."""
    if "psutil" not in sys.modules:
        await aside(lambda: import_module("psutil"))


def usage(pid: int) -> Usage | None:
    """Return the current usage of a process, or None if it has ended."""
    import psutil  # noqa: PLC0415  # a server without workers does not need it

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            return Usage(process.memory_info().rss, cpu.user + cpu.system)
    except psutil.Error:
        return None
