"""Bodies of replies are told from what follows them, however they are cut, and connections are kept or closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator

import httpx2
import pytest

from localapi.backends.http_client import HttpClient
from localapi.backends.http_framing import Chunked, FixedLength, Framing, UntilClosed
from localapi.backends.http_transport import Body, Transport
from localapi.backends.upstream import Upstream
from localapi.errors import UpstreamUnavailable

pytestmark = pytest.mark.everyday

CHUNKED = b"3\r\nabc\r\n0010 ; name=value\r\n0123456789abcdef\r\n1\n\n\r\n0\r\nTrailer: yes\r\n\r\n"
WHOLE = b"abc0123456789abcdef\n"
FIXED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def read(framing: Framing, data: bytes, size: int) -> bytes:
    return b"".join(framing.feed(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", range(1, len(CHUNKED) + 1))
def test_the_cuts_of_a_chunked_body_do_not_matter(size: int) -> None:
    framing = Chunked()
    assert read(framing, CHUNKED, size) == WHOLE
    assert framing.ended
    assert framing.rest == b""


def test_what_follows_a_body_is_no_part_of_it() -> None:
    for framing, data in ((Chunked(), b"1\r\na\r\n0\r\n\r\nHTTP"), (FixedLength(1), b"aHTTP")):
        assert framing.feed(data) == b"a"
        assert framing.ended
        assert framing.rest == b"HTTP"


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n", b"-1\r\n", b"\r\n", b"0x1\r\n", b"3\r\nabcd\r\n", b"1\r\na1\r\n", b"f" * 16 + b"\r\n", b"1" * 2000,
        b"0\r\n" + b"a: b\r\n" * 20_000,
    ],
)  # fmt: skip
def test_a_chunk_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        Chunked().feed(data)


def test_only_a_body_without_a_length_may_end_with_its_connection() -> None:
    for framing in (Chunked(), FixedLength(3)):
        framing.feed(b"1")
        with pytest.raises(httpx2.RemoteProtocolError):
            framing.close()
    last = UntilClosed()
    assert last.feed(b"1") == b"1"
    last.close()
    assert last.ended


@contextlib.asynccontextmanager
async def asking(port: int) -> AsyncIterator[httpx2.AsyncClient]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = Transport(context, socket_options=(), keep_seconds=60, max_kept=1)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=None) as client:
        yield client


@contextlib.asynccontextmanager
async def replying(*replies: bytes, closes: bool = False) -> AsyncIterator[tuple[int, list[int]]]:
    """A server that sends these one after the other. It tells its port, and the requests of each connection."""
    left = iter(replies)
    connections: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = len(connections)
        connections.append(0)
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, StopIteration):
            while await reader.readuntil(b"\r\n\r\n"):
                connections[at] += 1
                writer.write(next(left))
                if closes:
                    return

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], connections


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
    ],
)
async def test_a_connection_is_used_again_only_if_that_is_sure_to_work(reply: bytes) -> None:
    async with replying(FIXED, FIXED, reply, FIXED) as (port, connections), asking(port) as client:
        assert [(await client.get("/")).text for _ in range(4)] == ["ok"] * 4
    assert connections == [3, 1]


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async with replying(FIXED, FIXED, closes=True) as (port, connections), asking(port) as client:
        for _ in range(2):
            assert (await client.get("/")).text == "ok"
            assert isinstance(client._transport, Transport)
            await asyncio.gather(*(wire.lost for wire in client._transport._wires))
    assert connections == [1, 1]


async def test_a_request_that_is_cancelled_while_it_connects_leaves_no_connection() -> None:
    gc.disable()  # a collection would close what is lost, at some time
    try:
        async with replying() as (port, connections), asking(port) as client:
            for steps in range(40):
                asked = asyncio.create_task(client.get("/"))
                for _ in range(steps % 20):
                    await asyncio.sleep(0)
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            assert connections
            await asyncio.gather(*(task for task in asyncio.all_tasks() if "answer" in repr(task.get_coro())))
    finally:
        gc.enable()


async def test_the_first_address_of_a_name_that_accepts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replying(FIXED) as (port, connections), asking(port) as client:

        async def addresses(*_: object, **__: object) -> list[tuple[object, ...]]:
            found = [(socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.3"), (socket.AF_INET6, "::1")]
            return [
                *((family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in found),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
        assert (await client.get(f"http://two-addresses.invalid:{port}/")).text == "ok"
    assert connections == [1]


async def test_informational_replies_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with replying(hints + FIXED) as (port, _), asking(port) as client:
        assert (await client.get("/")).text == "ok"


async def test_what_comes_late_is_waited_for_until_then() -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"
    async with replying(begun) as (port, _), asking(port) as client, client.stream("GET", "/") as reply:
        body = reply.extensions["body"]
        assert isinstance(body, Body)
        now = asyncio.get_running_loop().time()
        assert await body.read(now + 60) == b"ok"
        with pytest.raises(TimeoutError):
            await body.read(now)


async def test_an_early_refusal_of_a_long_body_is_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**20)

    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with replying(refusal) as (port, _), asking(port) as client:
        reply = await client.post("/", content=endless())
        assert (reply.status_code, reply.text) == (413, "no")


async def test_requests_to_other_machines_go_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with replying(FIXED, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (port, connections):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        other = HttpClient("away", Upstream(url="http://model.invalid:81"))
        await other.open()
        assert await other.get("/models") is None  # "ok" is no JSON, but it has come
        await other.close()
        here = HttpClient("here", Upstream(url="http://127.0.0.1:9", connect_seconds=5))
        await here.open()
        with pytest.raises(UpstreamUnavailable):
            await here.get("/models")
        await here.close()
    assert connections == [1]
