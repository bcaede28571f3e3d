"""What a process uses, measured from outside: it need not answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Of one process."""

    memory_bytes: int
    """Resident, with what it shares with others."""
    cpu_seconds: float
    """Since it began."""


def usage(pid: int) -> Usage | None:
    """Return what a process uses now, or None if it has ended."""
    import psutil  # noqa: PLC0415  # a server without a worker does without it

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            return Usage(process.memory_info().rss, cpu.user + cpu.system)
    except psutil.Error:
        return None
