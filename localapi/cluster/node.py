"""Code that runs on a node: a Ray actor that starts one worker there and relays its socket.

Only the standard library is imported at the top: a node that lacks a package can then report that.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from localapi.backends.process import ChildProcess
    from localapi.system.free_ports import FreePorts

MOST_BYTES: Final = 1024 * 1024
"""Maximum bytes in one report."""
MOST_LINES: Final = 200
"""Maximum lines of output kept between two reports; the oldest are dropped."""
PACKAGES: Final = ("msgspec", "psutil")
"""Packages that a worker needs besides its engine."""

Report = tuple[bytes, list[str], int | None, float | None, str | None]
"""Bytes sent by the worker, lines printed, its memory and processor time, and how it ended if it has."""


class NodeWorker:
    """Worker on this node. Its process ends with the actor's, however that ends."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._ports: FreePorts
        self._child: ChildProcess
        self._reader: StreamReader
        self._writer: StreamWriter

    async def look(self, needs: str | None) -> tuple[str, list[str]]:
        """Return this node's id, and the packages that its Python lacks."""
        import ray  # noqa: PLC0415

        wanted = [*PACKAGES, needs] if needs is not None else PACKAGES
        missing = [package for package in wanted if importlib.util.find_spec(package) is None]
        return ray.get_runtime_context().get_node_id(), missing

    async def start(self, env: dict[str, str], secrets: list[str], ports: int) -> tuple[int, list[str]]:
        """Start the worker. Return its process id, and the addresses of this many ports that are reserved for it.

        `env` is added to this node's variables.
        """
        import ray  # noqa: PLC0415

        from localapi.backends import process  # noqa: PLC0415  # needs packages that may be missing
        from localapi.system import free_ports  # noqa: PLC0415

        self._ports = free_ports.keep(ray.util.get_node_ip_address(), ports)
        self._child, self._reader, self._writer = await process.start_worker_process(
            self._keep_line, env=env, hide=secrets
        )
        return self._child.pid, list(self._ports.addresses)

    def _keep_line(self, line: str) -> None:
        self._lines.append(line)
        del self._lines[:-MOST_LINES]

    async def send(self, data: bytes) -> None:
        """Pass bytes on to the worker."""
        self._ports.release()
        if not self._writer.is_closing():
            self._writer.write(data)

    async def receive(self, seconds: float) -> Report:
        """Return what the worker sends next. After this many seconds, return without it, as a sign of life."""
        import asyncio  # noqa: PLC0415

        data, how = b"", None
        try:
            async with asyncio.timeout(seconds):
                data = await self._reader.read(MOST_BYTES)
                ended = not data
        except TimeoutError:
            ended = False
        except ConnectionError:
            ended = True
        if ended:
            how = await self._child.how_it_ended()
        usage = self._child.usage()
        lines, self._lines = self._lines, []
        return data, lines, usage.memory_bytes if usage else None, usage.cpu_seconds if usage else None, how

    async def stop(self, seconds: float) -> None:
        """Close the socket, which ends the worker. Kill it if that takes longer than this, at once if it is 0."""
        self._writer.close()
        if seconds == 0:
            self._child.kill()
        await self._child.close(seconds)
