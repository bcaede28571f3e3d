"""A client that costs little: raw HTTP over sockets, no JSON until the answers are complete."""

from __future__ import annotations

import bisect
import json
import re
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')
_DELTA = re.compile(rb'"content":\s*"[^"]')
_EVENT = re.compile(rb"^data: (\{.*\})\r?\n", re.MULTILINE)
END = b"data: [DONE]"

Message = dict[str, str]


@dataclass(frozen=True)
class Answers:
    """What came of some requests at the same time."""

    seconds: float
    """From the first request to the last answer's end."""
    first_seconds: float
    """Until every stream had its first text, or what the server sends before it."""
    tokens: int
    chunks: int


@dataclass(frozen=True)
class Answer:
    """What came of one request, and when."""

    sent: float
    """On `time.perf_counter` of the process that asked, as `moments` are."""
    moments: Sequence[float]
    """When each piece of text came."""
    text: str
    tokens: int = 0
    """Of the answer; as the next two, 0 where the client did not wait for the end."""
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def first_seconds(self) -> float:
        """From the request to the first text of the answer."""
        return self.moments[0] - self.sent

    def gaps(self, start: float, end: float) -> list[float]:
        """Seconds from each text to the next, of those that lie in this time at least in part."""
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return [after - before for before, after in pairs if after > start and before < end]


class _Stream:
    """One request on its way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.body = bytearray()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.sent = time.perf_counter()
        self._arrivals: list[tuple[int, float]] = []
        """How long the body was, and since when."""
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what is there; whether there is more to come."""
        received = self.socket.recv(65536)
        self.body += received
        self._arrivals.append((len(self.body), time.perf_counter()))
        return bool(received) and END not in self.body[-200:]

    def moment(self, length: int) -> float:
        """When the body was so long."""
        return self._arrivals[bisect.bisect_left(self._arrivals, (length, 0.0))][1]

    def has_text(self) -> bool:
        return _DELTA.search(self.body) is not None

    def answer(self) -> Answer:
        """All that has come, read."""
        events = [json.loads(event) for event in _EVENT.findall(self.body)]
        usage: dict[str, Any] = next((event["usage"] for event in reversed(events) if event.get("usage")), {})
        deltas = [choice["delta"] for event in events for choice in event.get("choices") or ()]
        return Answer(
            sent=self.sent,
            moments=[self.moment(found.end()) for found in _DELTA.finditer(self.body)],
            text="".join(delta.get("content") or "" for delta in deltas),
            tokens=usage.get("completion_tokens", 0),
            prompt_tokens=usage.get("prompt_tokens", 0),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
        )


def conversation(question: str, *, system: str | None = None) -> list[Message]:
    """Messages to ask."""
    before = [{"role": "system", "content": system}] if system is not None else []
    return [*before, {"role": "user", "content": question}]


def fetch(port: int, model: str, prompts: Sequence[str], max_tokens: int) -> Answers:
    """Stream one answer to each prompt, all at once."""
    requests = [_request(model, conversation(prompt), max_tokens) for prompt in prompts]
    started = time.perf_counter()
    streams = [_Stream(port, request) for request in requests]
    _read(streams)
    seconds = time.perf_counter() - started
    for stream in streams:
        _check(stream)
    return Answers(
        seconds=seconds,
        first_seconds=max(stream.moment(stream.body.index(b"data: ") + 1) for stream in streams) - started,
        tokens=sum(int(_USAGE.findall(stream.body)[-1]) for stream in streams),
        chunks=sum(len(_DELTA.findall(stream.body)) for stream in streams),
    )


def ask(port: int, model: str, messages: Sequence[Message], max_tokens: int) -> Answer:
    """Stream one answer."""
    stream = _Stream(port, _request(model, messages, max_tokens))
    _read([stream])
    _check(stream)
    return stream.answer()


def interrupt(
    port: int, model: str, running: Sequence[Message], late: Sequence[Message], *, seconds: float, max_tokens: int
) -> tuple[Answer, Answer]:
    """Stream an answer that does not end; so many seconds later another one. Hang up on the first after the second."""
    first = _Stream(port, _request(model, running, 1_000_000))
    while not first.has_text():
        assert first.receive(), first.body.decode(errors="replace")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        assert first.receive(), first.body.decode(errors="replace")
    second = _Stream(port, _request(model, late, max_tokens))
    _read([first, second], until=second)
    _check(second)
    with first.socket:
        assert END not in first.body, "the running answer was to last longer"
        assert first.receive(), first.body.decode(errors="replace")
    return first.answer(), second.answer()


def _read(streams: Iterable[_Stream], *, until: _Stream | None = None) -> None:
    """Read all to their ends, or that one to its end."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map() and not (until and until.socket.fileno() < 0):
            for key, _ in selector.select():
                if not key.data.receive():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()


def _check(stream: _Stream) -> None:
    assert END in stream.body, stream.body.decode(errors="replace")


def _request(model: str, messages: Sequence[Message], max_tokens: int) -> bytes:
    body = json.dumps(
        {
            "model": model,
            "messages": messages,
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
