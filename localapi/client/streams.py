"""Many streamed answers at the same time, at little cost, to measure a server and not its client.

Raw HTTP over sockets; nothing is decoded until the answers are complete. Each stream reads one reply, to its end.
"""

from __future__ import annotations

import bisect
import json
import re
import selectors
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

CHAT_PATH: Final = "/v1/chat/completions"
END: Final = b"data: [DONE]"
_TEXT: Final = re.compile(rb'"(?:reasoning_)?content":\s*"[^"]')
"""The beginning of a piece of text, or of thinking, in an event."""
_EVENT: Final = re.compile(rb"^data: (\{.*\})\r?\n", re.MULTILINE)
_USAGE: Final = re.compile(rb'"completion_tokens":\s*(\d+)')
_STATUS: Final = re.compile(rb"HTTP/1\.\d (\d{3})")
_RECEIVED_BYTES: Final = 65536


class Stream:
    """One request on its way."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        """Connect and send. Raises OSError."""
        self.body = bytearray()
        """All that has come: head, events, and the framing between them."""
        self.socket = socket.create_connection(address)
        self.sent = time.perf_counter()
        """On `time.perf_counter`, as `moments` are."""
        self.broken = ""
        """Why the connection ended before the answer did, where it did."""
        self._arrivals: list[tuple[int, float]] = []
        """How long the body was, and since when."""
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
        """Take what is there; whether there is more to come."""
        try:
            received = self.socket.recv(_RECEIVED_BYTES)
        except OSError as error:
            self.broken = error.strerror or str(error)
            return False
        self.body += received
        self._arrivals.append((len(self.body), time.perf_counter()))
        return bool(received) and END not in self.body[-200:]

    def moment(self, length: int) -> float:
        """When the body was so long."""
        return self._arrivals[bisect.bisect_left(self._arrivals, (length, 0.0))][1]

    @property
    def ended(self) -> float:
        """When the last of it came."""
        return self._arrivals[-1][1] if self._arrivals else self.sent

    def has_text(self) -> bool:
        return _TEXT.search(self.body) is not None

    def moments(self) -> list[float]:
        """When each piece of text came."""
        return [self.moment(found.end()) for found in _TEXT.finditer(self.body)]

    def events(self) -> list[dict[str, Any]]:
        """What the events say."""
        return [json.loads(event) for event in _EVENT.findall(self.body)]

    def tokens(self) -> int:
        """Of the answer, as its usage counts them; 0 where that has not come."""
        return int((_USAGE.findall(self.body) or [0])[-1])

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage object; empty where it has not come."""
        return next((event["usage"] for event in reversed(self.events()) if event.get("usage")), {})

    def failure(self) -> str:
        """Why this is no complete answer; empty where it is one."""
        if END in self.body:
            return ""
        head, _, content = bytes(self.body).partition(b"\r\n\r\n")
        for text in (content, *_EVENT.findall(content)):
            if message := _error_message(text):
                return message
        status = _STATUS.match(head)
        if status and status[1] != b"200":
            return f"status {status[1].decode()}"
        return self.broken or "the server ended before the answer did"


def _error_message(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def read(streams: Iterable[Stream], *, until: Stream | None = None) -> None:
    """Read all to their ends, or that one to its end. What is at its end is closed."""
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map() and not (until and until.socket.fileno() < 0):
            for key, _ in selector.select():
                if not key.data.receive():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()


def streamed(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion's body, asking for a stream that ends with its usage."""
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def chat_request(host: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a request for a streamed chat completion that ends with its usage."""
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
