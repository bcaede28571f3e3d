"""Hypercorn's HTTP on a socket that is ours, with an end that comes in bounded time.

`hypercorn.asyncio.serve` keeps a connection for `keep_alive_timeout` after its client has closed it, and at the end
waits without limit for clients that do not read. Both are mended here; parsing and protocols are Hypercorn's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from hypercorn.utils import wrap_app

GRACE_SECONDS = 1.0
"""How long connections may take to end by themselves when the server ends; requests were drained before."""


class Connection(TCPServer):
    """One client's connection."""

    async def _read_data(self) -> None:
        await super()._read_data()
        # The client has closed. Hypercorn would wait for the idle timer; nobody will use this connection again.
        await self.idle_task.stop()


async def serve(app: ASGIFramework, config: Config, listening: socket.socket, until: Awaitable[None]) -> None:
    """Answer on a listening socket until `until` is done. Nothing is left of any connection when this returns."""
    loop = asyncio.get_running_loop()
    context = WorkerContext(None)
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio.start_server runs this in one
        connections[task] = writer
        try:
            await Connection(wrapped, loop, config, context, {}, reader, writer)
        finally:
            del connections[task]

    server = await asyncio.start_server(connected, sock=listening, backlog=config.backlog)
    try:
        await until
    finally:
        server.close()
        await context.terminated.set()
        if connections:
            await asyncio.wait(list(connections), timeout=GRACE_SECONDS)
        for writer in connections.values():
            writer.transport.abort()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
