"""Measure how fast a model generates, with one stream or several; `localapi bench` and the benchmarks use it.

Raw HTTP over sockets, so that the server is measured and not its client: nothing is decoded until the responses are
complete. Failed requests are counted, never averaged in.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import math
import random
import re
import selectors
import socket
import statistics
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from localapi.client import Server
from localapi.errors import Refused

CHAT_PATH: Final = "/v1/chat/completions"
END: Final = b"data: [DONE]"
_TEXT: Final = re.compile(rb'"(?:reasoning_)?content":\s*"[^"]')
"""Start of a piece of text or reasoning in an event."""
_EVENT: Final = re.compile(rb"^data: (\{.*\})\r?\n", re.MULTILINE)
_USAGE: Final = re.compile(rb'"completion_tokens":\s*(\d+)')
_STATUS: Final = re.compile(rb"HTTP/1\.\d (\d{3})")
_RECEIVED_BYTES: Final = 65536
NINETY: Final = 0.9
_WORDS: Final = (
    *("time", "way", "year", "work", "day", "part", "place", "case", "week", "point", "number", "group", "fact"),
    *("water", "house", "story", "month", "book", "side", "eye", "power", "city", "line", "end", "car", "night"),
)


class Stream:
    """Running request."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        """Connect and send the request. Raise OSError."""
        self.body = bytearray()
        """Everything received: head, events, and the framing between them."""
        self.socket = socket.create_connection(address)
        self.sent = time.perf_counter()
        """Time of sending, by `time.perf_counter`, like `moments`."""
        self.broken = ""
        """Reason, if the connection ended before the response was complete."""
        self._arrivals: list[tuple[int, float]] = []
        """Lengths of the body, each with the time when it was reached."""
        try:
            self.socket.sendall(request)
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self) -> bool:
        """Read what has arrived. Return True if there is more to come."""
        try:
            received = self.socket.recv(_RECEIVED_BYTES)
        except OSError as error:
            self.broken = error.strerror or str(error)
            return False
        self.body += received
        self._arrivals.append((len(self.body), time.perf_counter()))
        return bool(received) and END not in self.body[-200:]

    def moment(self, length: int) -> float:
        """Return the time when the body reached a length."""
        return self._arrivals[bisect.bisect_left(self._arrivals, (length, 0.0))][1]

    @property
    def ended(self) -> float:
        """Time of the last byte."""
        return self._arrivals[-1][1] if self._arrivals else self.sent

    def has_text(self) -> bool:
        return _TEXT.search(self.body) is not None

    def moments(self) -> list[float]:
        """Return the time when each piece of text arrived."""
        return [self.moment(found.end()) for found in _TEXT.finditer(self.body)]

    def events(self) -> list[dict[str, Any]]:
        """Return the decoded events."""
        return [json.loads(event) for event in _EVENT.findall(self.body)]

    def tokens(self) -> int:
        """Return the number of tokens in the response according to its usage; 0 without one."""
        return int((_USAGE.findall(self.body) or [0])[-1])

    def usage(self) -> dict[str, Any]:
        """OpenAI usage object; empty if it has not arrived."""
        return next((event["usage"] for event in reversed(self.events()) if event.get("usage")), {})

    def failure(self) -> str:
        """Return why the response is incomplete, or "" if it is complete."""
        if END in self.body:
            return ""
        head, _, content = bytes(self.body).partition(b"\r\n\r\n")
        for text in (content, *_EVENT.findall(content)):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # not an error
                return str(json.loads(text)["error"]["message"])
        status = _STATUS.match(head)
        if status and status[1] != b"200":
            return f"status {status[1].decode()}"
        return self.broken or "the server stopped before the response was complete"


def read(streams: Iterable[Stream], *, until: Stream | None = None) -> None:
    """Read all streams to their ends, or until one has ended. Close each at its end."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map() and not (until and until.socket.fileno() < 0):
            for key, _ in selector.select():
                if not key.data.receive():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()


def streamed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a streamed chat completion that ends with its usage."""
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def chat_request(host: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a request for a streamed chat completion that ends with its usage."""
    content = json.dumps(streamed(body)).encode()
    lines = {
        "Host": host,
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {CHAT_PATH} HTTP/1.1\r\n{head}\r\n".encode() + content


@dataclass(frozen=True)
class Timing:
    """Times of a complete response."""

    first_seconds: float
    """Time from the request to the first text."""
    tokens: int
    tokens_per_second: float | None
    """Speed after the first text; None if all text came at once."""
    prompt_tokens: int
    cached_tokens: int


@dataclass
class Level:
    """Measurements for one number of streams."""

    streams: int
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Number of failed requests, by message."""
    timings: list[Timing] = field(default_factory=list)
    """Timings from rounds without failures."""
    speeds: list[float] = field(default_factory=list)
    """Tokens per second of all streams together, including prompt time, from rounds without failures."""

    def summary(self) -> dict[str, Any]:
        """Return medians and counts for scripts; None for what was not measured."""
        firsts = sorted(timing.first_seconds for timing in self.timings)
        each = [timing.tokens_per_second for timing in self.timings if timing.tokens_per_second is not None]

        def mean(values: Iterable[int]) -> float | None:
            return statistics.fmean(values) if self.timings else None

        return {
            "streams": self.streams,
            "requests": self.requests,
            "failed": self.failures.total(),
            "errors": dict(self.failures),
            "first_token_seconds": {
                "median": statistics.median(firsts) if firsts else None,
                "p90": firsts[math.ceil(NINETY * len(firsts)) - 1] if firsts else None,
            },
            "tokens_per_second": statistics.median(self.speeds) if self.speeds else None,
            "tokens_per_second_per_stream": statistics.median(each) if each else None,
            "tokens_per_answer": mean(timing.tokens for timing in self.timings),
            "prompt_tokens": mean(timing.prompt_tokens for timing in self.timings),
            "cached_tokens": mean(timing.cached_tokens for timing in self.timings),
        }


@dataclass(frozen=True)
class Workload:
    """Requests to send, and the server to send them to."""

    server: Server
    model: str
    tokens: int
    """Maximum tokens of a response."""
    words: int
    """Words in a prompt."""

    def body(self, prompt: str) -> dict[str, Any]:
        """Return the body of one request."""
        message = {"role": "user", "content": prompt}
        return {"model": self.model, "messages": [message], "max_tokens": self.tokens, "temperature": 0}

    def measure_round(self, level: Level, seed: str) -> None:
        """Send a new prompt on each stream at once, and add the results to the level."""
        host = urllib.parse.urlsplit(self.server.address).netloc
        bodies = [self.body(prompt(self.words, f"{seed} {number}")) for number in range(level.streams)]
        requests = [chat_request(host, body, self.server.headers) for body in bodies]
        failures = Counter[str]()
        with contextlib.ExitStack() as stack:
            started, streams = time.perf_counter(), list[Stream]()
            for request in requests:
                try:
                    streams.append(stack.enter_context(Stream(self.server.host_and_port, request)))
                except OSError as error:
                    failures[f"no connection: {error.strerror or error}"] += 1
            read(streams)
        failures.update(failure for stream in streams if (failure := stream.failure()))
        level.requests += len(requests)
        level.failures += failures
        if not failures:
            level.timings += map(_timing, streams)
            ended = max(stream.ended for stream in streams)
            level.speeds.append(sum(stream.tokens() for stream in streams) / (ended - started))


def _timing(stream: Stream) -> Timing:
    usage, moments = stream.usage(), stream.moments()
    first = moments[0] if moments else stream.ended  # a response without text
    writing = moments[-1] - first if moments else 0.0
    tokens = usage["completion_tokens"]
    return Timing(
        first_seconds=first - stream.sent,
        tokens=tokens,
        tokens_per_second=(tokens - 1) / writing if writing and tokens > 1 else None,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
    )


def prompt(words: int, seed: str) -> str:
    """Return a text with this number of words. Texts of different seeds have no common prefix, so no cache helps."""
    rng = random.Random(seed)  # noqa: S311  # nothing is secret
    return " ".join(rng.choices(_WORDS, k=words))


def words_for(server: Server, model: str, tokens: int) -> int:
    """Return how many words of `prompt` make a number of tokens, or that number if the model cannot count tokens."""
    try:
        counted = int(server.post("/v1/tokenize", {"model": model, "text": prompt(tokens, "")})["count"])
    except (Refused, KeyError, TypeError):
        return tokens
    return max(1, round(tokens * tokens / max(counted, 1)))
