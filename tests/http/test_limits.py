"""HTTP below the application: limits of time and number, and requests that two readers would understand differently."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypercorn.config import Config

from localapi.app import listen
from localapi.http import hypercorn_server

pytestmark = pytest.mark.everyday

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with what it was sent."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@asynccontextmanager
async def served(app: Any = echo) -> AsyncIterator[int]:
    config = Config()
    config.errorlog = logging.getLogger("test")
    done = asyncio.Event()
    with listen("127.0.0.1", 0) as listening:
        task = asyncio.create_task(hypercorn_server.serve(app, config, listening, done.wait()))
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            await task


async def answers(port: int, *pieces: bytes) -> bytes:
    """Everything that comes back for these bytes until the server closes, or until a second answer could not come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


async def test_a_head_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_server, "HEAD_SECONDS", 0.3)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def trickle() -> None:
            while True:
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.02)

        writer.write(HEAD)
        slowly = asyncio.create_task(trickle())
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        slowly.cancel()
        writer.close()


async def test_the_limit_does_not_touch_bodies_and_waiting_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_server, "HEAD_SECONDS", 0.1)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEAD + b"Content-Length: 4\r\n\r\nab")
            await asyncio.sleep(0.2)
            writer.write(b"cd")
            assert (await reader.readuntil(b"abcd")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.2)
        writer.close()


async def test_an_answer_that_does_not_end_is_cut_off_without_an_error_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hypercorn_server, "GRACE_SECONDS", 0)
    asked, ends = asyncio.Event(), asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.set()

    async with served(endless) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"\r\n")
        await asked.wait()
    assert ends.is_set()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert [record.getMessage() for record in caplog.records] == []


async def test_connections_over_the_limit_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_server, "MAX_CONNECTIONS", 2)
    async with served() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        for _, each in (*held, (reader, writer)):
            each.close()
        while True:
            try:
                assert b"200" in await answers(port, HEAD + b"Content-Length: 0\r\n\r\n")
                break
            except OSError:  # the closed ones are still being counted
                await asyncio.sleep(0.01)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + SMUGGLED,
        HEAD + b"Content-Length: 4, 5\r\n\r\nabcde" + SMUGGLED,
        HEAD + b"Content-Length: +4\r\n\r\nabcd" + SMUGGLED,
        HEAD + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
        HEAD + b"Content-Length: 0x4\r\n\r\nabcd" + SMUGGLED,
        HEAD + b"Content-Length : 4\r\n\r\nabcd" + SMUGGLED,
        HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcdefgh\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0;" + b"x" * 400_000 + b"\r\n\r\n" + SMUGGLED,
        HEAD + b"X: a\x00b\r\n\r\n" + SMUGGLED,
        HEAD + b"X\x00: b\r\n\r\n" + SMUGGLED,
        HEAD + b"X: a\rGET /smuggled HTTP/1.1\r\n\r\n" + SMUGGLED,
        HEAD + b": b\r\n\r\n" + SMUGGLED,
        HEAD + b"no colon\r\n\r\n" + SMUGGLED,
        HEAD + b"Host: elsewhere\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\n Host: localhost\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/1.1\r\n\r\n" + SMUGGLED,
        b"POST / HTTP/2.0\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"POST /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"POST  / HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
        b"POST http://elsewhere/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        b"POST http://localhost:80@elsewhere/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 2\r\n\r\n{}" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;\n{}\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" + SMUGGLED,
        HEAD + b"Content-Length: 1_0\r\n\r\n" + SMUGGLED,
        HEAD + b"X: " + b"y" * 4 * hypercorn_server.HEAD_BYTES + b"\r\n\r\n" + SMUGGLED,
        HEAD + b"X: y\r\n" * hypercorn_server.HEAD_BYTES + b"\r\n" + SMUGGLED,
    ],
    ids=lambda sent: repr(sent[34:84]),
)
async def test_a_request_that_could_be_read_in_two_ways_is_the_connections_last(sent: bytes) -> None:
    async with served() as port:
        try:
            answer = await answers(port, sent)
        except ConnectionError:
            return
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert b" 200 " not in answer


async def test_a_folded_header_is_one_header_and_no_other_request() -> None:
    async with served() as port:
        answer = await answers(port, HEAD + b"X: a\r\n Content-Length: 50\r\nContent-Length: 2\r\n\r\nab")
    assert answer.endswith(b"\r\n\r\nab")


async def test_an_upgrade_to_http_2_is_not_taken() -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    async with served() as port:
        answer = await answers(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + upgrade)
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_in_chunks_is_read() -> None:
    async with served() as port:
        answer = await answers(
            port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"1;x=y\r\nc\r\n0\r\n\r\n"
        )
    assert answer.endswith(b"abc")


# Replies before the body has come


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers before it has read anything, as one does that asks for a key."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no", "more_body": False})


REFUSED = b"\r\n\r\nno"
LENGTH = HEAD + b"Content-Length: 200000\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
X = b"x" * 100_000
X_CHUNK = b"186a0\r\n" + X + b"\r\n"
Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connected]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("begun", "rest"),
    [
        (LENGTH, X + X),
        (LENGTH + X, X),
        (LENGTH + X + X[1:], b"x"),
        (CHUNKED, X_CHUNK + b"0\r\n\r\n"),
        (CHUNKED + X_CHUNK, X_CHUNK + b"0\r\n\r\n"),
        (CHUNKED + X_CHUNK[:-4], X_CHUNK[-4:] + b"1\r\nx\r\n" * 10_000 + b"0\r\nTrailer: x\r\n\r\n"),
        (CHUNKED + X_CHUNK, b"0\r\n\r\n"),
    ],
    ids=["length", "length, half", "length, nearly all", "chunks", "chunks, half", "within a chunk", "the last chunk"],
)
async def test_a_reply_does_not_wait_for_the_body_and_the_connection_is_used_again(begun: bytes, rest: bytes) -> None:
    async with served(refuse) as port, connected(port) as (reader, writer):
        for _ in range(3):
            writer.write(begun)
            assert (await reader.readuntil(REFUSED)).startswith(b"HTTP/1.1 401")
            writer.write(rest)
            await writer.drain()


async def test_requests_behind_a_body_that_nobody_read_are_answered() -> None:
    async with served(refuse) as port, connected(port) as (reader, writer):
        writer.write((LENGTH + X + X + CHUNKED + X_CHUNK + b"0\r\n\r\n") * 2 + HEAD + b"Connection: close\r\n\r\n")
        assert (await reader.read()).count(b"HTTP/1.1 401") == 5


@pytest.mark.parametrize(
    "head",
    [
        LENGTH.replace(b"200000", b"2000000\r\nConnection: close"),
        LENGTH.replace(b"200000", b"2000000").replace(b"HTTP/1.1", b"HTTP/1.0"),
        CHUNKED.replace(b"chunked", b"chunked\r\nConnection: close") + b"1e8480\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
        HEAD + b"X: " + b"y" * 2 * hypercorn_server.HEAD_BYTES + b"\r\n\r\n",
        CHUNKED + b"no chunk\r\n",
    ],
    ids=["close", "HTTP/1.0", "chunks, close", "no host", "unknown coding", "large head", "no chunks"],
)
async def test_a_client_that_sends_all_before_it_reads_gets_the_reply_of_a_connection_that_ends(head: bytes) -> None:
    async with served(refuse) as port, connected(port) as (reader, writer):
        writer.write(head)
        for _ in range(20):
            writer.write(X)
            await writer.drain()
        assert (await reader.read()).startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))


async def endless(writer: asyncio.StreamWriter, data: bytes, *, seconds: float = 0) -> None:
    """Send the same again and again, until the server has closed."""
    while True:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(seconds)


async def test_a_client_that_sends_without_end_is_not_read_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_server, "DRAIN_BYTES", 1_000_000)
    async with served(refuse) as port, connected(port) as (_, writer):
        writer.write(CHUNKED)
        with pytest.raises(ConnectionError):
            await endless(writer, X_CHUNK)


@pytest.mark.parametrize("head", [LENGTH, LENGTH.replace(b"200000", b"200000\r\nConnection: close")])
async def test_a_client_that_does_not_send_the_rest_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(hypercorn_server, "DRAIN_QUIET_SECONDS", 0.1)
    async with served(refuse) as port, connected(port) as (reader, writer):
        writer.write(head)
        assert (await reader.read()).startswith(b"HTTP/1.1 401")


async def test_a_client_that_sends_slowly_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_server, "DRAIN_QUIET_SECONDS", 0.1)
    monkeypatch.setattr(hypercorn_server, "DRAIN_SECONDS", 0.5)
    async with served(refuse) as port, connected(port) as (_, writer):
        writer.write(LENGTH)
        with pytest.raises(ConnectionError):
            await endless(writer, b"x", seconds=0.02)


async def test_a_client_that_asks_whether_to_send_is_told_no_before_it_has_sent() -> None:
    async with served(refuse) as port, connected(port) as (reader, writer):
        writer.write(LENGTH.replace(b"200000", b"200000\r\nExpect: 100-continue"))
        head = await reader.readuntil(REFUSED)
        assert (head[:12], b"connection: close" in head) == (b"HTTP/1.1 401", True)
        writer.write(X + X)
        assert await reader.read() == b""


async def test_a_client_that_asks_whether_to_send_is_told_to_go_on() -> None:
    async with served() as port, connected(port) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"ab")
        assert (await reader.readuntil(b"ab")).startswith(b"HTTP/1.1 200")


async def test_clients_that_are_still_sending_do_not_keep_the_server_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hypercorn_server, "GRACE_SECONDS", 0)
    async with served(refuse) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LENGTH)
        await reader.readuntil(REFUSED)
    writer.close()
    assert [record.getMessage() for record in caplog.records] == []
