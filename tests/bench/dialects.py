"""Cost of each dialect: the same answer streamed through all, with the server's processor time per token.

    python -m tests.bench.dialects [--tokens N] [--rounds N] [--model FOLDER]

The engine is echo, which is faster than any model, so the server's own work is nearly all there is. With the folder of
a model, the answers are that model's. In each round the dialects take turns, in changing order.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from localapi.cli.text_table import table
from tests.bench import figures
from tests.server import serving

MANIFEST: Final = "chat: {{bench: {}}}\n"
ECHO: Final = "{backend: echo}"
MODEL: Final = "{{backend: mlx-lm, path: '{}', preload: true, locked: {{temperature: 0, max_tokens: {}}}}}"
WORD: Final = "word "
USUAL: Final = "chat completions"
READ_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Way:
    """One dialect: where it is asked, with which body, and what ends its stream."""

    path: str
    body: dict[str, Any]
    end: bytes


@dataclass(frozen=True)
class Spent:
    """Cost of one answer."""

    seconds: float
    cpu_seconds: float


def ways(tokens: int) -> dict[str, Way]:
    """Return the dialects, each with a request for an answer of so many tokens."""
    messages = [{"role": "user", "content": WORD * tokens}]
    said = {"model": "bench", "messages": messages, "stream": True}
    return {
        USUAL: Way("/v1/chat/completions", said, b"data: [DONE]"),
        "responses": Way(
            "/v1/responses",
            {"model": "bench", "input": messages, "stream": True, "store": False},
            b"data: [DONE]",
        ),
        "messages": Way("/v1/messages", {**said, "max_tokens": tokens + 1}, b"event: message_stop"),
        "ollama": Way("/api/chat", said, b'"done":true'),
    }


def main() -> None:
    """Measure and print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dialects", description=description)
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="answers of each dialect (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="folder of a model that answers instead of echo")
    arguments = parser.parse_args()
    model = ECHO if arguments.model is None else MODEL.format(arguments.model.resolve(), arguments.tokens)
    found = measured(MANIFEST.format(model), arguments.tokens, arguments.rounds)
    rows = []
    for name, spent in found.items():
        cpu, usual = ([each.cpu_seconds for each in rounds] for rounds in (spent, found[USUAL]))
        seconds, usual_seconds = ([each.seconds for each in rounds] for rounds in (spent, found[USUAL]))
        row = [name, figures.ratio(usual_seconds, seconds)]
        if arguments.model is None:  # the server's part of a model's answer is shorter than a tick of its clock
            row += [f"{1e6 * statistics.median(cpu) / arguments.tokens:.1f}", figures.ratio(usual, cpu)]
        rows.append(row)
    columns = ["", "tokens/s beside chat completions", "CPU µs/token", "tokens/CPU s beside chat completions"]
    for line in table(columns[: len(rows[0])], rows):
        print(line)


def measured(manifest: str, tokens: int, rounds: int) -> dict[str, list[Spent]]:
    """Return what the answers of each dialect took."""
    asked = list(ways(tokens).items())
    found: dict[str, list[Spent]] = {name: [] for name, _ in asked}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), manifest) as server:
        process = psutil.Process(server.process.pid)
        for number in range(-1, rounds):  # the first round imports and fills caches
            for name, way in asked if number % 2 else reversed(asked):
                spent = _fetched(server.port, way, process)
                if number >= 0:
                    found[name].append(spent)
    return found


def _fetched(port: int, way: Way, process: psutil.Process) -> Spent:
    """Return what one answer took. It is searched for its end alone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    body = json.dumps(way.body).encode()
    before, started = process.cpu_times(), time.perf_counter()
    connection.request("POST", way.path, body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    rest = b""
    for part in iter(lambda: reply.read1(READ_BYTES), b""):
        rest = (rest + part)[-READ_BYTES:]
    seconds, after = time.perf_counter() - started, process.cpu_times()
    connection.close()
    assert reply.status == 200, rest
    assert way.end in rest, rest[-500:]
    return Spent(seconds, after.user + after.system - before.user - before.system)


if __name__ == "__main__":
    main()
