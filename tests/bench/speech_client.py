"""A client of speech servers that costs little: what it gets is neither decoded nor looked at before all has come."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

TIMEOUT_SECONDS = 300
BLOCK = 65_536


@dataclass(frozen=True)
class Asked:
    """A request that is not sent yet."""

    port: int
    path: str
    body: Mapping[str, str]


@dataclass(frozen=True)
class Heard:
    """Result of one text."""

    first_seconds: float
    """From the request to the first byte of sound."""
    seconds: float
    """To the last."""
    sound: bytes


def fetch(asked: Asked) -> Heard:
    """The whole answer."""
    with _sent(asked) as (started, reply):
        blocks = [reply.read1(BLOCK)]
        first = time.perf_counter()
        while block := reply.read1(BLOCK):
            blocks.append(block)
        return Heard(first - started, time.perf_counter() - started, b"".join(blocks))


def fetch_all(asked: Sequence[Asked]) -> float:
    """Seconds until requests at the same time all have their answers."""
    with ThreadPoolExecutor(len(asked)) as threads:
        started = time.perf_counter()
        heard = list(threads.map(fetch, asked))
        seconds = time.perf_counter() - started
    assert all(each.sound for each in heard)
    return seconds


def first_byte(asked: Asked) -> float:
    """Seconds to the first byte of an answer, of which no more is wanted."""
    with _sent(asked) as (started, reply):
        assert reply.read1(BLOCK)
        return time.perf_counter() - started


@contextlib.contextmanager
def _sent(asked: Asked) -> Iterator[tuple[float, http.client.HTTPResponse]]:
    """Return the time of sending and the beginning of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=TIMEOUT_SECONDS)
    with contextlib.closing(connection):
        body = json.dumps(asked.body).encode()
        started = time.perf_counter()
        connection.request("POST", asked.path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        yield started, reply
