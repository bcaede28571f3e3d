"""Hypercorn's HTTP on a socket that is ours, with an end that comes in bounded time, and with limits.

`hypercorn.asyncio.serve` keeps a connection for `keep_alive_timeout` after its client has closed it, at the end waits
without limit for clients that do not read, and lets a client send the head of a request as slowly as it likes. It also
speaks HTTP/2 to whoever asks, which no client of a local server does. These are mended here; parsing is h11's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable
from typing import Final

import h11
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import EventWrapper, WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import ASGIFramework
from hypercorn.utils import wrap_app

from localapi.http.listener import Door, Reader, raise_limit

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0
"""How long connections may take to end by themselves when the server ends; requests were drained before."""
HEAD_SECONDS: Final = 20.0
"""How long the head of a request may take from its first byte."""
HEAD_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 1000
"""More are closed at once: each costs a descriptor, and workers and files need some."""


_WHOLE_URL: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


class StrictConnection(h11.Connection):
    """Refuses what two readers of the same bytes could understand differently (RFC 9112, 6.1), and HTTP/2."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > HEAD_BYTES:
                # h11's own limit is of heads that are not complete yet: one that comes at once would pass.
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
            if {b"content-length", b"transfer-encoding"} <= names:
                raise h11.RemoteProtocolError("Content-Length beside Transfer-Encoding", error_status_hint=400)
            if event.http_version not in (b"1.0", b"1.1"):
                raise h11.RemoteProtocolError("not HTTP/1", error_status_hint=505)
            url, host = _WHOLE_URL.match(event.target), dict(event.headers).get(b"host", b"")
            if url is not None and url[1].lower() != host.lower():
                raise h11.RemoteProtocolError("a URL of another host than Host", error_status_hint=400)
        return event


class Answered(EventWrapper):
    """Set when a request is answered, for which what its client sent after it has to wait.

    Nothing is read meanwhile, and so no end of the connection would be: a client could not leave.
    """

    def __init__(self, ended: asyncio.Event) -> None:
        super().__init__()
        self._ended = ended

    async def wait(self) -> None:
        """Raises ConnectionResetError where the client has left."""
        waits = [asyncio.create_task(event.wait()) for event in (self._event, self._ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if not self._event.is_set():
            raise ConnectionResetError("the client has left")


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else."""

    def strict(self, ended: asyncio.Event) -> Http1:
        """The same with the strict reader, for a connection of which `ended` tells the end."""
        self.connection = StrictConnection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self.can_read = Answered(ended)
        return self

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn's changes to HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Hypercorn's begins web sockets here, and keeps connections for ever whose handshake is wrong.

        A server may answer as if nobody had asked for another protocol (RFC 9110, 7.8).
        """
        if any(name == b"upgrade" for name, _ in request.headers):
            headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
            request = h11.Request(
                method=request.method, target=request.target, headers=headers, http_version=request.http_version
            )
        await super()._create_stream(request)


class Connection(TCPServer):
    """One client's connection."""

    reader: Reader
    _head_begun = False
    _between_requests = True

    async def _read_data(self) -> None:
        made = self.protocol  # by run(), which begins to read here
        self.protocol = Http1(  # type: ignore[assignment]  # it has the same methods
            made.app, made.config, made.context, made.task_group, made.state, made.ssl, made.client, made.server,
            made.send,
        ).strict(self.reader.ended)  # fmt: skip
        with contextlib.suppress(OSError):
            while not self.reader.at_eof():
                data = await self.reader.read(MAX_RECV)
                if data and self._between_requests and not self._head_begun:
                    self._head_begun = True
                    await self.idle_task.restart(self._task_group, self._head_timeout)
                await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())
        # The client has closed. Hypercorn would wait for the idle timer; nobody will use this connection again.
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._between_requests, self._head_begun = event.idle, False
        await super().protocol_send(event)

    async def _head_timeout(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.context.terminated.wait(), HEAD_SECONDS)
        await asyncio.shield(self._initiate_server_close())


async def serve(app: ASGIFramework, config: Config, listening: socket.socket, until: Awaitable[None]) -> None:
    """Answer on a listening socket until `until` is done. Nothing is left of any connection when this returns."""
    loop = asyncio.get_running_loop()
    context = WorkerContext(None)
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answer(reader: Reader, writer: asyncio.StreamWriter) -> None:
        await Connection(wrapped, loop, config, context, {}, reader, writer)

    def connected(reader: Reader, writer: asyncio.StreamWriter) -> None:
        """Its task is ours: asyncio's own, once cancelled, is told as an error up to Python 3.11."""
        if len(connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = loop.create_task(answer(reader, writer), name="connection")
        connections[task] = writer
        task.add_done_callback(ended)

    def ended(task: asyncio.Task[None]) -> None:
        writer = connections.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection failed", exc_info=error)
            writer.transport.abort()

    raise_limit()
    door = Door(listening, connected)
    try:
        await until
    finally:
        door.close()
        await context.terminated.set()
        if connections:
            await asyncio.wait(list(connections), timeout=GRACE_SECONDS)
        for writer in connections.values():
            writer.transport.abort()
        left = list(connections)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
