"""HTTP/1.1 over asyncio, as a transport for httpx2: heads by h11, and bodies as they arrive.

A stream of tokens arrives in one piece per token. httpx2's own transport takes some 90 µs for each: it lets h11 parse
bodies, passes each piece through five generators, and stops reading in between, with two system calls.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import h11
import httpx2

from localapi.backends.http_framing import Framing, framing_of
from localapi.system.timer import WaitLimit

BURST: Final = 4
"""Maximum connections that may be made at the same time."""
TURN_SECONDS: Final = 0.002
"""Time in which a server accepts a connection."""
TURN_SECONDS_OLD: Final = 0.05
"""The same for an HTTP/1.0 server, such as one of Python's library, which may be busy with its model."""


class Turns:
    """Turns for making connections to one server, a few at a time."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(BURST)
        self.seconds = TURN_SECONDS
        """Length of a turn whose end is not noticed earlier."""

    def learn(self, http_version: str) -> None:
        """Record which HTTP version the server speaks."""
        self.seconds = TURN_SECONDS_OLD if http_version == "HTTP/1.0" else TURN_SECONDS


class Turn:
    """Turn of one request, if it makes a connection. Call `end` last."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, event: str, _: Mapping[str, Any]) -> None:
        """Wait for the turn if a connection is about to be made. This is a `trace` function of httpcore."""
        if event == "connection.connect_tcp.started":
            await self._turns.free.acquire()
            self._timer = asyncio.get_running_loop().call_later(self._turns.seconds, self.end)

    def end(self) -> None:
        """Let the next request connect."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._turns.free.release()


MAX_HEAD_BYTES: Final = 100 * 1024
MAX_UNREAD_BYTES: Final = 2**20
"""Maximum unread bytes; beyond that, the socket is not read."""
SENT_AT_ONCE_BYTES: Final = 2**16
HAPPY_EYEBALLS_SECONDS: Final = 0.25
"""Time for one address to accept a connection before the next one is tried beside it (RFC 8305)."""
NO_ANSWER: Final = "Server disconnected without sending a response."
_PORTS: Final = {"http": 80, "https": 443}
Origin = tuple[str, str, int]


class Wire(asyncio.Protocol):
    """One connection. Data is kept until it is read."""

    transport: asyncio.Transport

    def __init__(self, lost: Callable[[Wire], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._when_lost = lost
        self._received: list[bytes] = []
        self._unread = 0
        self._is_paused = False
        self._writable: asyncio.Future[None] | None = None
        """Done when the system accepts data again; None while it does."""
        self._waiter: asyncio.Future[None] | None = None
        self._limit = WaitLimit()
        self._error: Exception | None = None
        self.ended = False
        """True if nothing more will come."""
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.idle: asyncio.TimerHandle | None = None
        """Timer that closes the connection while it is idle."""

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # that of a stream
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.idle is not None:  # no request is waiting for this data
            self.abort()
            return
        self._received.append(data)
        self._unread += len(data)
        if self._unread > MAX_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()
        if self.idle is not None:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended, self._error = True, error
        self._wake()
        self._limit.stop()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if not self.lost.done():
            self.lost.set_result(None)
        self._when_lost(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # The reader's side

    async def receive(self, until: float | None = None) -> bytes:
        """Return received bytes; b"" at the end. Raise httpx2.ReadError, and TimeoutError at `until` of the loop."""
        while not self._received:
            if self.ended:
                if self._error is not None:
                    raise httpx2.ReadError(str(self._error)) from self._error
                return b""
            await self._news(until)
        data = self._received[0] if len(self._received) == 1 else b"".join(self._received)
        self._received.clear()
        self._unread = 0
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        return data

    async def send(self, data: bytes) -> bool:
        """Send bytes as fast as they are accepted. Return False if the other side has already replied or closed."""
        self.transport.write(data)
        if self._writable is not None:
            self._waiter = self._loop.create_future()
            try:
                await asyncio.wait((self._writable, self._waiter), return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._waiter = None
        return not (self._received or self.ended)

    def abort(self) -> None:
        """Close the connection at once."""
        self._limit.stop()
        if self.idle is not None:
            self.idle.cancel()
        self.transport.abort()

    async def _news(self, until: float | None) -> None:
        """Wait for data or the end."""
        self._waiter = self._loop.create_future()
        try:
            await (self._waiter if until is None else self._limit.wait(self._waiter, until))
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Body(httpx2.AsyncByteStream):
    """Bytes of a reply, as they arrive."""

    def __init__(self, wire: Wire, framing: Framing, rest: bytes, free: Callable[[], None]) -> None:
        """Start with `rest`, which arrived with the head. `free` is called when the body is complete."""
        self._wire = wire
        self._framing = framing
        self._rest = rest
        self._free = free
        self._closed = False
        if framing.ended:
            self._complete()

    async def read(self, until: float | None = None) -> bytes:
        """Return the next bytes; b"" at the end.

        Raise httpx2.ReadError, httpx2.RemoteProtocolError, and TimeoutError at `until` of the loop's clock.
        """
        framing = self._framing
        while not framing.ended:
            data = self._rest or await self._wire.receive(until)
            self._rest = b""
            if not data:
                framing.close()
                break
            content = framing.feed(data)
            if framing.ended:
                self._complete()
            if content:
                return content
        self._complete()
        return b""

    async def __aiter__(self) -> Any:
        while data := await self.read():
            yield data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._wire.abort()

    def _complete(self) -> None:
        if not self._closed:
            self._closed = True
            self._free()


class Transport(httpx2.AsyncBaseTransport):
    """Connections that are made as needed and kept for a moment."""

    def __init__(
        self,
        certificates: ssl.SSLContext,
        *,
        socket_options: Sequence[tuple[int, int, int]],
        keep_seconds: float,
        max_kept: int,
    ) -> None:
        self._certificates = certificates
        self._socket_options = socket_options
        self._keep_seconds = keep_seconds
        self._max_kept = max_kept
        self._wires: set[Wire] = set()
        self._idle: dict[Wire, Origin] = {}
        """Idle connections, the most recently used last."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and return its reply as soon as the head has arrived."""
        url = request.url
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
        wire = self._kept(origin) or await self._connected(origin, request.extensions)
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            is_sent = await _send(wire, parser, request)
            head = await _head(wire, parser)
        except h11.RemoteProtocolError as error:
            wire.abort()
            raise httpx2.RemoteProtocolError(str(error)) from error
        except h11.LocalProtocolError as error:
            wire.abort()
            raise httpx2.LocalProtocolError(str(error)) from error
        except BaseException:
            wire.abort()
            raise
        headers = httpx2.Headers(list(head.headers))
        framing = framing_of(request.method, head.status_code, headers)
        is_kept = is_sent and head.http_version == b"1.1" and "close" not in headers.get("connection", "").lower()

        def free() -> None:
            self._keep(wire, origin, is_clean=is_kept and not framing.rest)

        body = Body(wire, framing, parser.trailing_data[0], free)
        version = b"HTTP/" + head.http_version
        extensions = {"http_version": version, "reason_phrase": head.reason, "body": body}
        return httpx2.Response(head.status_code, headers=headers, stream=body, extensions=extensions)

    async def aclose(self) -> None:
        """Close all connections, even those in use."""
        wires = list(self._wires)
        for wire in wires:
            wire.abort()
        await asyncio.gather(*(wire.lost for wire in wires))

    def _kept(self, origin: Origin) -> Wire | None:
        for wire in reversed(self._idle):
            if self._idle[wire] == origin and not wire.transport.is_closing():
                del self._idle[wire]
                assert wire.idle is not None  # noqa: S101  # it was kept
                wire.idle.cancel()
                wire.idle = None
                return wire
        return None

    def _keep(self, wire: Wire, origin: Origin, *, is_clean: bool) -> None:
        if not is_clean or wire.ended or len(self._idle) >= self._max_kept:
            wire.abort()
            return
        self._idle[wire] = origin
        wire.idle = asyncio.get_running_loop().call_later(self._keep_seconds, wire.abort)

    def _forget(self, wire: Wire) -> None:
        self._wires.discard(wire)
        self._idle.pop(wire, None)

    async def _connected(self, origin: Origin, extensions: dict[str, Any]) -> Wire:
        """Return a new connection. Raise httpx2.ConnectError or httpx2.ConnectTimeout."""
        scheme, host, port = origin
        trace = extensions.get("trace")
        if trace is not None:
            await trace("connection.connect_tcp.started", {})
        limit = asyncio.timeout(extensions["timeout"]["connect"])
        try:
            async with limit:
                wire = await self._raced(host, port, self._certificates if scheme == "https" else None)
        except OSError as error:  # TimeoutError is a subclass
            if limit.expired():
                raise httpx2.ConnectTimeout("no connection in time") from error
            raise httpx2.ConnectError(str(error)) from error
        self._wires.add(wire)
        connection = wire.transport.get_extra_info("socket")
        for option in self._socket_options:
            connection.setsockopt(*option)
        return wire

    async def _raced(self, host: str, port: int, certificates: ssl.SSLContext | None) -> Wire:
        """Return the connection to the first address of a host that accepts one. Raise OSError."""
        loop = asyncio.get_running_loop()

        async def connect(address: str) -> Wire:
            name = host if certificates is not None else None
            connecting = loop.create_connection(
                lambda: Wire(self._forget), address, port, ssl=certificates, server_hostname=name
            )
            return (await connecting)[1]

        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            addresses = _in_turn(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return await connect(addresses[0]) if len(addresses) == 1 else await _first_of(connect, addresses)


async def _first_of(connect: Callable[[str], Coroutine[Any, Any, Wire]], addresses: Sequence[str]) -> Wire:
    """Return the first of several connections, each of which is tried a moment after the previous one (RFC 8305).

    If cancelled, asyncio's `happy_eyeballs_delay` loses a connection (seen with Python 3.11.7), which stays open until
    a garbage collection.
    """
    attempts: list[asyncio.Task[Wire]] = []
    running: set[asyncio.Task[Wire]] = set()
    winner: asyncio.Task[Wire] | None = None
    try:
        while winner is None and (running or len(attempts) < len(addresses)):
            if len(attempts) < len(addresses):
                attempts.append(asyncio.create_task(connect(addresses[len(attempts)])))
                running.add(attempts[-1])
            pause = HAPPY_EYEBALLS_SECONDS if len(attempts) < len(addresses) else None
            done, running = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            winner = next((each for each in done if each.exception() is None), None)
        return (winner or attempts[0]).result()
    finally:
        losers = [each for each in attempts if each is not winner]
        for each in losers:
            each.cancel()
        for wire in await asyncio.gather(*losers, return_exceptions=True):
            if isinstance(wire, Wire):
                wire.abort()


async def _send(wire: Wire, parser: h11.Connection, request: httpx2.Request) -> bool:
    """Send a request. Return False if the server replied before its end."""
    head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
    data = parser.send(head) or b""
    assert isinstance(request.stream, httpx2.AsyncByteStream)  # noqa: S101  # that of an asynchronous client
    async for piece in request.stream:
        data += parser.send(h11.Data(data=piece)) or b""
        if len(data) >= SENT_AT_ONCE_BYTES:
            if not await wire.send(data):
                return False
            data = b""
    data += parser.send(h11.EndOfMessage()) or b""
    await wire.send(data)
    return True


async def _head(wire: Wire, parser: h11.Connection) -> h11.Response:
    """Return the head of the reply. Raise httpx2.RemoteProtocolError."""
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Response):
            return event
        if isinstance(event, h11.InformationalResponse):
            continue
        if event is not h11.NEED_DATA:
            raise httpx2.RemoteProtocolError("the reply has no head")
        data = await wire.receive()
        if not data:
            raise httpx2.RemoteProtocolError(NO_ANSWER)
        parser.receive_data(data)


def _in_turn(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return the resolved addresses, alternating between address families."""
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append(address[0])
    turns = itertools.zip_longest(*families.values())
    return list(dict.fromkeys(address for turn in turns for address in turn if address is not None))
