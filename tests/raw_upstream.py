"""A server that sends what a test tells it, byte by byte: for upstreams that behave badly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Handler = Callable[["Connection"], Awaitable[None]]


@dataclass
class Connection:
    """One request, and where its reply goes."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, status: int, content: object, **headers: str) -> None:
        """Send a whole reply: bytes as they are, anything else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.send(f"HTTP/1.1 {status} X\r\n{head}content-length: {len(data)}\r\n\r\n".encode() + data)

    async def events(self, *chunks: object, end: bytes = b"data: [DONE]\n\n") -> None:
        """Send server-sent events; the connection ends after them."""
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for chunk in chunks:
            await self.send(chunk if isinstance(chunk, bytes) else f"data: {json.dumps(chunk)}\n\n".encode())
        await self.send(end)
        self.writer.close()

    async def left(self) -> None:
        """Wait until the other side has closed the connection."""
        while await self.reader.read(1024):
            pass


@dataclass
class RawUpstream:
    """The server. `handler` answers all paths but the list of models."""

    handler: Handler
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "big"}])
    asked: list[Connection] = field(default_factory=list)
    """Requests so far, without those for the list of models."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers: dict[str, str] = {}
                while (line := await reader.readline()).strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                connection = Connection(method, path, headers, body, reader, writer)
                if path == "/v1/models":
                    await connection.reply(200, {"object": "list", "data": self.models})
                    continue
                self.asked.append(connection)
                await self.handler(connection)
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_upstream(handler: Handler, **fields: Any) -> AsyncIterator[RawUpstream]:
    upstream = RawUpstream(handler, **fields)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
