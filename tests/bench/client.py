"""A client that costs little: raw HTTP over sockets, no JSON until the answers are complete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from localapi.client.measuring import END, Stream, chat_request, read

Message = dict[str, str]


@dataclass(frozen=True)
class Answers:
    """Results of some concurrent requests."""

    seconds: float
    """From the first request to the last answer's end."""
    first_seconds: float
    """Until every stream had its first text, or what the server sends before it."""
    tokens: int
    chunks: int


@dataclass(frozen=True)
class Answer:
    """Result of one request, with times."""

    sent: float
    """On `time.perf_counter` of the process that asked, as `moments` are."""
    moments: Sequence[float]
    """Times of the pieces of text."""
    text: str
    tokens: int = 0
    """Tokens of the answer; like the next two, 0 if the client did not wait for the end."""
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


def conversation(question: str, *, system: str | None = None) -> list[Message]:
    """Messages to ask."""
    before = [{"role": "system", "content": system}] if system is not None else []
    return [*before, {"role": "user", "content": question}]


def fetch(port: int, model: str, prompts: Sequence[str], max_tokens: int, **fields: Any) -> Answers:
    """Stream one answer to each prompt, all at once. `fields`: more of the requests' bodies."""
    requests = [_request(model, conversation(prompt), max_tokens, **fields) for prompt in prompts]
    started = time.perf_counter()
    streams = [_sent(port, request) for request in requests]
    read(streams)
    seconds = time.perf_counter() - started
    for stream in streams:
        _check(stream)
    return Answers(
        seconds=seconds,
        first_seconds=max(stream.moment(stream.body.index(b"data: ") + 1) for stream in streams) - started,
        tokens=sum(stream.tokens() for stream in streams),
        chunks=sum(len(stream.moments()) for stream in streams),
    )


def ask(port: int, model: str, messages: Sequence[Message], max_tokens: int) -> Answer:
    """Stream one answer."""
    stream = _sent(port, _request(model, messages, max_tokens))
    read([stream])
    _check(stream)
    return _answer(stream)


def interrupt(
    port: int, model: str, running: Sequence[Message], late: Sequence[Message], *, seconds: float, max_tokens: int
) -> tuple[Answer, Answer]:
    """Stream an answer that does not end; so many seconds later another one. Hang up on the first after the second."""
    first = _sent(port, _request(model, running, 1_000_000))
    while not first.has_text():
        assert first.receive(), first.body.decode(errors="replace")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        assert first.receive(), first.body.decode(errors="replace")
    second = _sent(port, _request(model, late, max_tokens))
    read([first, second], until=second)
    _check(second)
    with first.socket:
        assert END not in first.body, "the running answer was to last longer"
        assert first.receive(), first.body.decode(errors="replace")
    return _answer(first), _answer(second)


def _answer(stream: Stream) -> Answer:
    """All that has come, read."""
    usage = stream.usage()
    deltas = [choice["delta"] for event in stream.events() for choice in event.get("choices") or ()]
    return Answer(
        sent=stream.sent,
        moments=stream.moments(),
        text="".join(delta.get("content") or "" for delta in deltas),
        tokens=usage.get("completion_tokens", 0),
        prompt_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
    )


def _sent(port: int, request: bytes) -> Stream:
    return Stream(("127.0.0.1", port), request)


def _check(stream: Stream) -> None:
    assert END in stream.body, stream.body.decode(errors="replace")


def _request(model: str, messages: Sequence[Message], max_tokens: int, **fields: Any) -> bytes:
    body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **fields}
    return chat_request("127.0.0.1", body)
