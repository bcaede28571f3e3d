"""What processes use, seen from outside: also of those that do not answer any more.

From /proc where there is one, and from `ps` elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12  # of /proc/PID/stat, counted from behind the name, which may hold anything
_UNITS: Final = (1.0, 60.0, 3600.0, 86400.0)


@dataclass(frozen=True)
class Usage:
    """Of one process."""

    memory_bytes: int
    """Resident, with what it shares with others."""
    cpu_seconds: float
    """Since it began."""


async def usage(pids: Collection[int]) -> dict[int, Usage]:
    """By process id; those that have ended are left out."""
    if not pids:
        return {}
    if PROC.joinpath("self").exists():
        return {pid: used for pid in pids if (used := _from_proc(pid)) is not None}
    return await _from_ps(pids)


def _from_proc(pid: int) -> Usage | None:
    try:
        pages = (PROC / str(pid) / "statm").read_text().split()[1]
        stat = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return None
    return Usage(int(pages) * _PAGE_BYTES, (int(stat[_UTIME]) + int(stat[_STIME])) / _TICKS)


async def _from_ps(pids: Collection[int]) -> dict[int, Usage]:
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", "-o", "pid=,rss=,time=", "-p", ",".join(map(str, pids)),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return {}
    output, _ = await process.communicate()
    rows = [line.split() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return {int(pid): Usage(int(kilobytes) * 1024, cpu_seconds(time)) for pid, kilobytes, time in rows}


def cpu_seconds(text: str) -> float:
    """From ps: "[[days-]hours:]minutes:seconds", on macOS with hundredths."""
    parts = reversed(re.split(r"[-:]", text))
    return sum(float(part) * unit for part, unit in zip(parts, _UNITS, strict=False))
