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
    monkeypatch.setattr(hypercorn_server, "HEAD_SECONDS", 0.2)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEAD + b"Content-Length: 4\r\n\r\nab")
            await asyncio.sleep(0.5)
            writer.write(b"cd")
            assert (await reader.readuntil(b"abcd")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.5)
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
