"""A client that costs little: raw HTTP over sockets, no JSON until the answers are complete."""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

_USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')
_DELTA = re.compile(rb'"content":\s*"[^"]')
END = b"data: [DONE]"


@dataclass(frozen=True)
class Answers:
    """What came of some requests at the same time."""

    seconds: float
    """From the first request to the last answer's end."""
    first_seconds: float
    """Until every stream had its first text, or what the server sends before it."""
    tokens: int
    chunks: int


def fetch(port: int, model: str, prompts: Sequence[str], max_tokens: int) -> Answers:
    """Stream one answer to each prompt, all at once."""
    requests = [_request(model, prompt, max_tokens) for prompt in prompts]
    started = time.perf_counter()
    first: dict[int, float] = {}
    bodies: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        for number, request in enumerate(requests):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ, number)
            bodies[number] = bytearray()
        while selector.get_map():
            for key, _ in selector.select():
                received = key.fileobj.recv(65536)  # type: ignore[union-attr]
                body = bodies[key.data]
                body += received
                if key.data not in first and b"data: " in received:
                    first[key.data] = time.perf_counter()
                if not received or END in body[-200:]:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
    seconds = time.perf_counter() - started
    for body in bodies.values():
        assert END in body, bytes(body).decode(errors="replace")
    return Answers(
        seconds=seconds,
        first_seconds=max(first.values()) - started,
        tokens=sum(int(_USAGE.findall(body)[-1]) for body in bodies.values()),
        chunks=sum(len(_DELTA.findall(body)) for body in bodies.values()),
    )


def _request(model: str, prompt: str, max_tokens: int) -> bytes:
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
