"""A server with two backends of the tests' own: one answers inside the server, the other over HTTP.

Each is one class of options and one engine. Nothing else of the server knows them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from localapi.backends.engine import Engine, ReportLoading, Vitals
from localapi.backends.options import ChatOptions
from localapi.errors import GenerationFailed
from localapi.kinds import CHAT
from localapi.worker.protocol import Chat, Delta, Ended, Event, Finished, Loaded, Request

MEMORY_BYTES = 123_456_789
LOOK_SECONDS = 0.05


class Inside(ChatOptions):
    """A model that answers two requests concurrently, and each only when a request says `go`."""

    backend: Literal["inside"]

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return InsideEngine()


class InsideEngine:
    def __init__(self) -> None:
        self.loaded = Loaded()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._places = asyncio.Semaphore(2)
        self._given = self._running = 0
        self._go = asyncio.Event()

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        assert isinstance(request, Chat)
        if request.messages[-1].text == "go":
            self._go.set()
            yield Finished(request.id, 1, 0)
            return
        self._given += 1
        try:
            async with self._places:
                self._running += 1
                try:
                    yield Delta(request.id, "Yes")
                    await self._go.wait()
                    yield Ended(request.id, 0, "stop")
                    yield Finished(request.id, 1, 1)
                finally:
                    self._running -= 1
        finally:
            self._given -= 1

    def vitals(self) -> Vitals:
        waiting = self._given - self._running
        return Vitals(
            running=self._running, unanswered=waiting, queued=waiting, max_batch=2, memory_bytes=MEMORY_BYTES,
            tokens_per_second=7.5,
        )  # fmt: skip

    def end(self, reason: str) -> None:
        self.ended.set_result(reason)

    async def close(self) -> None:
        """Nothing to give back."""


class Remote(ChatOptions):
    """A model on another server, which tells how it is at /vitals and answers at /answer."""

    backend: Literal["remote"]
    url: str

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return RemoteEngine(self.url)


class RemoteEngine:
    def __init__(self, url: str) -> None:
        self.loaded = Loaded()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._url = urlsplit(url)
        self._vitals = Vitals()
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            try:
                told = await self._get("/vitals")
            except OSError as error:
                self._vitals = Vitals(healthy=False, reason=f"{self._url.netloc} cannot be reached: {error.strerror}")
            else:
                self._vitals = Vitals(**told)
            await asyncio.sleep(LOOK_SECONDS)

    async def _get(self, path: str) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        told: dict[str, Any] = json.loads(body)
        return told

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        try:
            text = (await self._get("/answer"))["text"]
        except OSError as error:
            raise GenerationFailed("the other server has gone") from error
        yield Delta(request.id, text)
        yield Ended(request.id, 0, "stop")
        yield Finished(request.id, 1, 1)

    def vitals(self) -> Vitals:
        return self._vitals

    def end(self, reason: str) -> None:
        self.ended.set_result(reason)

    async def close(self) -> None:
        self._looking.cancel()
        with suppress(asyncio.CancelledError):
            await self._looking


@dataclass
class OtherServer:
    """Server that the remote engine asks."""

    url: str
    close: Callable[[], None]
    vitals: dict[str, Any] = field(default_factory=dict)


@contextmanager
def other_server() -> Iterator[OtherServer]:
    """A little HTTP server, whose vitals the test sets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(other.vitals if self.path == "/vitals" else {"text": "From afar."}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    other = OtherServer(f"http://127.0.0.1:{server.server_port}", close)
    try:
        yield other
    finally:
        close()


def program(folder: Path) -> Path:
    """Write a `localapi` that has both backends."""
    path = folder / "localapi-with-own-engines"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from tests.own_engines import main\nmain()\n"
    )
    path.chmod(0o755)
    return path


def main() -> None:
    """Be `localapi`, with both backends."""
    backends = cast("dict[str, type[ChatOptions]]", CHAT.backends)
    backends |= {"inside": Inside, "remote": Remote}
    from localapi.cli import main as localapi  # noqa: PLC0415  # the kinds are complete now

    localapi()
