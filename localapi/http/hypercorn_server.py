"""Serve HTTP with Hypercorn on our own socket, with limits, and with a shutdown in bounded time.

`hypercorn.asyncio.serve` keeps a connection for `keep_alive_timeout` after its client has closed it. At shutdown, it
waits without limit for clients that do not read. It lets a client send the head of a request as slowly as it likes. It
closes a connection while a body is still arriving, so that the client loses the reply. It offers HTTP/2, which no
client of a local server uses. All of this is fixed here; h11 does the parsing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import h11
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import EventWrapper, WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.typing import AppWrapper, ASGIFramework, LifespanState
from hypercorn.utils import wrap_app

from localapi.http.listener import Door, Reader, raise_limit

log = logging.getLogger(__name__)

GRACE_SECONDS = 1.0
"""Time for connections to end by themselves at shutdown; requests were drained before."""
HEAD_SECONDS: Final = 20.0
"""Time limit for the head of a request, from its first byte."""
HEAD_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 1000
"""Maximum open connections; further ones are closed at once. Each needs a descriptor, and so do workers and files."""
CONTINUE_SECONDS: Final = 0.05
"""Time in which a request with `Expect: 100-continue` can be refused before the client gets a 100."""
DRAIN_BYTES: Final = 128 * 1024 * 1024
"""Maximum number of bytes read and discarded if a client continues to send after its reply."""
DRAIN_SECONDS: Final = 30.0
DRAIN_QUIET_SECONDS: Final = 3.0
"""Maximum pause of a client that still sends after its reply."""
MAX_UNSENT_BYTES: Final = 64 * 1024
"""Maximum bytes that are held back to be sent together with what follows."""


_WHOLE_URL: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


class StrictConnection(h11.Connection):
    """Parser that rejects ambiguous requests (RFC 9112, 6.1) and HTTP/2."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > HEAD_BYTES:
                # h11 limits only incomplete heads; one that arrives at once would pass.
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
            if {b"content-length", b"transfer-encoding"} <= names:
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding", error_status_hint=400)
            if event.http_version not in (b"1.0", b"1.1"):
                raise h11.RemoteProtocolError("not HTTP/1", error_status_hint=505)
            url, host = _WHOLE_URL.match(event.target), dict(event.headers).get(b"host", b"")
            if url is not None and url[1].lower() != host.lower():
                raise h11.RemoteProtocolError("the host in the URL differs from Host", error_status_hint=400)
        return event


class Answered(EventWrapper):
    """Event that is set when a request is answered; the client's next request waits for it.

    Nothing is read meanwhile, so the wait must also end when the client disconnects.
    """

    def __init__(self, ended: asyncio.Event) -> None:
        super().__init__()
        self._ended = ended

    async def wait(self) -> None:
        """Raise ConnectionResetError if the client has disconnected."""
        waits = [asyncio.create_task(event.wait()) for event in (self._event, self._ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        if not self._event.is_set():
            raise ConnectionResetError("the client has left")


@dataclass(frozen=True)
class Drains(Event):
    """The reply was sent, but the rest of the request's body is still to come."""


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else."""

    connection: StrictConnection

    def strict(self, ended: asyncio.Event, send_part: Callable[[bytes], Awaitable[None]]) -> Http1:
        """Return the protocol with the strict parser.

        `ended` is set at the end of the connection. `send_part` sends a part of a streamed reply.
        """
        self.connection = StrictConnection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._send_part = send_part
        self._is_chunked = False
        """True if the reply is chunked."""
        self.can_read = Answered(ended)
        self._replied = asyncio.Event()
        self._drains = False
        return self

    async def stream_send(self, event: StreamEvent) -> None:
        """Send an event as Hypercorn does, and record that there is a reply."""
        if isinstance(event, Body) and self._is_chunked and self.connection.our_state is h11.SEND_BODY:
            # h11 would cost more than everything else that is done for a token. It keeps no state about chunks.
            await self._send_part(b"%x\r\n%b\r\n" % (len(event.data), event.data))
            return
        if isinstance(event, Response):
            self._replied.set()
            if self.connection.they_are_waiting_for_100_continue:
                # The client may or may not send the body now, so what follows could be read in two ways.
                event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _send_h11_event(self, event: h11.Event) -> None:
        if not isinstance(event, h11.Response):
            await super()._send_h11_event(event)  # type: ignore[arg-type]  # it is one that is sent
            return
        data = self.connection.send(event) or b""
        self._is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in data.lower()
        await self.send(RawData(data=data))

    async def _maybe_recycle(self) -> None:
        """Read the rest of a body before the next request.

        Hypercorn closes the connection instead. The system then resets it, and the client may never see its reply.
        """
        if (self.connection.our_state, self.connection.their_state) != (h11.DONE, h11.SEND_BODY):
            await super()._maybe_recycle()
            return
        stream, self.stream, self._drains = self.stream, None, True
        if stream is not None:
            await stream.handle(StreamClosed(stream_id=STREAM_ID))
        if self._drains:
            await self.send(Drains())

    async def _handle_events(self) -> None:
        await super()._handle_events()  # returns at once if no application reads the body
        while self._drains and await self._drained():
            await super()._handle_events()

    async def _drained(self) -> bool:
        """Discard the received part of an unread body. Return True if it was complete."""
        try:
            while self.connection.their_state is h11.SEND_BODY:
                if self.connection.next_event() is h11.NEED_DATA:
                    return False
        except h11.RemoteProtocolError:
            await self.send(Closed())
            return False
        self._drains = False
        await super()._maybe_recycle()
        return True

    async def _check_protocol(self, event: h11.Request) -> None:
        """Do not switch to HTTP/2, as Hypercorn would here."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Ignore requests for other protocols, which a server may do (RFC 9110, 7.8).

        Hypercorn would start web sockets here, and keep a connection forever if its handshake is invalid.
        """
        if any(name == b"upgrade" for name, _ in request.headers):
            headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
            request = h11.Request(
                method=request.method, target=request.target, headers=headers, http_version=request.http_version
            )
        self._replied.clear()
        await super()._create_stream(request)
        if self.connection.they_are_waiting_for_100_continue:
            # Hypercorn sends 100 next. A refusal that needs no body spares the client from sending it.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._replied.wait(), CONTINUE_SECONDS)


class Connection(TCPServer):
    """Connection of a client."""

    reader: Reader
    _head_begun = False
    _between_requests = True
    _drains = False
    """True if incoming data is discarded: the rest of a body, or everything."""
    _closes = False
    """True if everything was sent. Incoming data is not even parsed."""
    _client_closed = False
    """True if the client sends nothing more."""
    _drained_bytes = 0
    _look: asyncio.TimerHandle | None = None

    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, reader: Reader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(app, asyncio.get_running_loop(), config, context, LifespanState(), reader, writer)
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0

    async def _read_data(self) -> None:
        made = self.protocol  # run() starts the task that reads
        self.protocol = Http1(  # type: ignore[assignment]  # it has the same methods
            made.app, made.config, made.context, made.task_group, made.state, made.ssl, made.client, made.server,
            made.send,
        ).strict(self.reader.ended, self._send_part)  # fmt: skip
        with contextlib.suppress(OSError):
            while not self.reader.at_eof():
                data = await self.reader.read(MAX_RECV)
                if self._drains:
                    self._drained_bytes += len(data)
                    if self._drained_bytes > DRAIN_BYTES:
                        break
                if self._closes:
                    continue
                if data and self._between_requests and not self._head_begun:
                    self._head_begun = True
                    await self.idle_task.restart(self._task_group, self._head_timeout)
                await self.protocol.handle(RawData(data))
        self._client_closed = True
        self._end_draining()
        await self.protocol.handle(Closed())
        # The client has closed this connection; Hypercorn would wait for the idle timer.
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        match event:
            case RawData():
                await self._send(event.data)
            case Closed():
                await self._half_close()
            case Drains():
                self._begin_draining()
            case Updated():
                self._between_requests, self._head_begun = event.idle, False
                self._end_draining()
                if event.idle and self._client_closed:
                    await self._half_close()
                else:
                    await super().protocol_send(event)
            case _:
                await super().protocol_send(event)

    async def _send(self, data: bytes) -> None:
        """Send data, together with what else is sent before the event loop polls again.

        A system call costs as much as all Python work for one event of a stream, and a reply often has several parts at
        a time: its head and the first event, or the last event and its end.
        """
        if not self._unsent:
            self.loop.call_soon(self._flush)
        await self._queue(data)

    async def _send_part(self, data: bytes) -> None:
        """Send a part of a stream at once, unless its head waits to be sent; more is unlikely to follow now."""
        if self._unsent:
            await self._queue(data)
            return
        with contextlib.suppress(RuntimeError):  # as in _flush
            self.writer.write(data)
        await self._drained()

    async def _queue(self, data: bytes) -> None:
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if self._unsent_bytes >= MAX_UNSENT_BYTES:
            self._flush()
        await self._drained()

    async def _drained(self) -> None:
        """Wait until the client has taken what was sent."""
        transport = self.writer.transport
        if transport.get_write_buffer_size() == 0 and not transport.is_closing():
            return
        async with self.send_lock:
            try:
                await self.writer.drain()
            except (ConnectionError, RuntimeError):
                await self.protocol.handle(Closed())

    def _flush(self) -> None:
        if self._unsent:
            with contextlib.suppress(RuntimeError):  # nothing can be sent any more, and the protocol knows
                self.writer.write(b"".join(self._unsent))
            self._unsent.clear()
            self._unsent_bytes = 0

    async def _initiate_server_close(self) -> None:
        self._flush()
        await super()._initiate_server_close()

    async def _close(self) -> None:
        self._flush()
        await super()._close()

    async def _half_close(self) -> None:
        """Send nothing more, and read until the client closes too.

        Data that arrives at a closed socket resets the connection, so that an unread reply is lost (RFC 9112, 9.6).
        """
        if self._closes:
            return
        self._closes = True
        self._flush()
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.write_eof()
        await self.protocol.handle(Closed())
        self._begin_draining()

    def _begin_draining(self) -> None:
        self._drains, self._drained_bytes = True, 0
        if not self._client_closed:
            self._look_again(-1, self.loop.time() + DRAIN_SECONDS)

    def _end_draining(self) -> None:
        self._drains = False
        if self._look is not None:
            self._look.cancel()

    def _look_again(self, before: int, ends: float) -> None:
        """Close if the client has sent nothing for a while, and after a longer time in any case."""
        if before == self._drained_bytes or self.loop.time() >= ends:
            self.writer.close()
        else:
            self._look = self.loop.call_later(DRAIN_QUIET_SECONDS, self._look_again, self._drained_bytes, ends)

    async def _head_timeout(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.context.terminated.wait(), HEAD_SECONDS)
        await asyncio.shield(self._initiate_server_close())


async def serve(
    app: ASGIFramework,
    config: Config,
    listening: socket.socket,
    until: Awaitable[object],
    *,
    grace_seconds: Callable[[], float] = lambda: GRACE_SECONDS,
) -> None:
    """Serve on a listening socket until `until` is done, then end all connections.

    `grace_seconds` returns how long connections may then take to end by themselves.
    """
    loop = asyncio.get_running_loop()
    context = WorkerContext(None)
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answer(reader: Reader, writer: asyncio.StreamWriter) -> None:
        await Connection(wrapped, config, context, reader, writer)

    def connected(reader: Reader, writer: asyncio.StreamWriter) -> None:
        """Start our own task; up to Python 3.11, asyncio reports a cancelled task of its own as an error."""
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
            await asyncio.wait(list(connections), timeout=grace_seconds())
        for writer in connections.values():
            writer.transport.abort()
        left = list(connections)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
