"""Measure the resources of a process from outside."""

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


def usage(*pids: int) -> Usage | None:
    """Return the current usage of some processes together, or None if all have ended."""
    import psutil  # noqa: PLC0415  # a server without workers does not need it

    measured = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                cpu = process.cpu_times()
                measured.append(Usage(process.memory_info().rss, cpu.user + cpu.system))
        except psutil.Error:
            continue
    if not measured:
        return None
    return Usage(sum(each.memory_bytes for each in measured), sum(each.cpu_seconds for each in measured))


def with_descendants(pid: int) -> tuple[int, ...]:
    """Return the ids of a process and of everything that it has started. Blocks: it reads all processes."""
    import psutil  # noqa: PLC0415

    try:
        return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))
    except psutil.Error:
        return (pid,)


def listening_ports(*pids: int) -> set[int]:
    """Return the TCP ports on which these processes listen. Blocks."""
    import psutil  # noqa: PLC0415

    ports: set[int] = set()
    for pid in pids:
        try:
            sockets = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:
            continue
        ports |= {each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN}
    return ports


def environment_of_listener(port: int) -> dict[str, str] | None:
    """Return the environment of a process that listens on a TCP port; None if it cannot be read. Blocks."""
    import psutil  # noqa: PLC0415

    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,) and each.pid is not None:
                return dict(psutil.Process(each.pid).environ())
    except (psutil.Error, OSError):
        pass
    return None
