"""A server whose answers come as a script says: the first token after a set time, and then one after the other.

    python -m tests.bench.scripted PORT [--first-ms N] [--every-ms N]

It computes nothing, so that what stands before it can be measured without the noise of a model. One process, which
speaks as much HTTP as its readers need.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from typing import Any, Final

MODEL: Final = "scripted"
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    """Return an event with a part of an answer, as most servers write it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _event({"choices": [choice]})


def _event(fields: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1700000000, "model": MODEL}
    return b"data: " + json.dumps({**head, **fields}).encode() + b"\n\n"


def framed(data: bytes) -> bytes:
    """Return data as a chunk of HTTP's chunked coding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST: Final = framed(chunk({"role": "assistant", "content": ""}) + chunk({"content": " one"}))
NEXT: Final = framed(chunk({"content": " more"}))
MODELS: Final = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()


def end(tokens: int) -> bytes:
    """Return the last chunks of an answer."""
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    last = chunk({}, "length") + _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    return framed(last) + framed(b"")


class Script(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, first_seconds: float, every_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._every_seconds = every_seconds
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        if head.startswith(b"POST"):
            tokens = int(json.loads(body).get("max_tokens", 16))
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._first_seconds, self._begin, tokens)
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(MODELS)
        self.transport.write(head + MODELS)

    def _begin(self, tokens: int) -> None:
        self.transport.write(HEAD + FIRST)
        self._go_on(1, tokens, time.monotonic())

    def _go_on(self, done: int, tokens: int, began: float) -> None:
        """Write the tokens that are due by now, one to a chunk, and come back for the next."""
        due = tokens if self._every_seconds == 0 else 1 + int((time.monotonic() - began) / self._every_seconds)
        while done < min(due, tokens):
            self.transport.write(NEXT)
            done += 1
        if done < tokens:
            when = began + done * self._every_seconds
            self._timer = asyncio.get_running_loop().call_at(when, self._go_on, done, tokens, began)
        else:
            self.transport.write(end(tokens))


async def serve(port: int, first_seconds: float, every_seconds: float) -> None:
    """Answer on a port of this machine until this is cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Script(first_seconds, every_seconds), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scripted")
    parser.add_argument("port", type=int)
    parser.add_argument("--first-ms", type=float, default=20.0)
    parser.add_argument("--every-ms", type=float, default=40.0)
    asked = parser.parse_args()
    asyncio.run(serve(asked.port, asked.first_ms / 1000, asked.every_ms / 1000))


if __name__ == "__main__":
    main()
