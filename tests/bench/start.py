"""Time until the server answers, its idle cost, and time until an edit is live.

    python -m tests.bench.start [--rounds N] [--idle-seconds S]

Prints what was measured beside what was aimed at. On a busy machine the times say little, so the stock server's
start is measured in between, and Python's own as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil

from localapi.cli.text_table import table
from tests.bench import models
from tests.bench.processes import Aside, answers, free_port, localapi_server, mlx_lm_server, until
from tests.server import Server, save, serving

MANIFEST = """\
chat:
  echo: {{backend: echo, aliases: [{alias}]}}
  demo: {{backend: mlx-lm, path: '{path}'}}
"""


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.start", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="starts, and a multiple of edits (default: %(default)s)")
    parser.add_argument("--idle-seconds", type=float, default=10, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Aside() as aside:
        folder = Path(name)
        model = aside(models.build, "tiny", folder)
        save(folder / "models.yaml", MANIFEST.format(alias="alias-0", path=model))
        rows = list(starts(folder, model, arguments.rounds))
        with serving(folder) as server:
            rows += idle(server, arguments.idle_seconds)
            rows += edits(server, folder, model, 4 * arguments.rounds)
    for line in table(["", "median", "worst", "aim"], rows):
        print(line)


def starts(folder: Path, model: Path, rounds: int) -> Iterator[Sequence[str]]:
    """From a new process to its first answer; in turn, and what Python takes to do nothing."""
    seconds: dict[str, list[float]] = {}

    def note(name: str, started: float) -> None:
        seconds.setdefault(name, []).append(time.perf_counter() - started)

    for _ in range(rounds):
        port = free_port()
        started = time.perf_counter()
        with localapi_server(folder, port) as process:
            until(partial(_answers, port, "echo"))
            note("start to first answer: echo", started)
            used = psutil.Process(process.pid).cpu_times()
            seconds.setdefault("CPU time in that", []).append(used.user + used.system)
        port = free_port()
        started = time.perf_counter()
        with localapi_server(folder, port):
            until(partial(_answers, port, "demo"))
            note("start to first answer: a tiny model, loaded for it", started)
        port = free_port()
        started = time.perf_counter()
        with mlx_lm_server(model, port):
            until(partial(_answers, port, "default_model"))
            note("the same, mlx_lm.server", started)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        note("start to end: an empty Python program", started)
    for name, took in seconds.items():
        aim = "under 1 s" if name.endswith("echo") else ""
        yield [name, f"{statistics.median(took):.2f} s", f"{max(took):.2f} s", aim]


def idle(server: Server, seconds: float) -> Iterator[Sequence[str]]:
    """CPU time and memory of a server that has answered from echo and has loaded nothing."""
    server.request("POST", "/v1/chat/completions", ask("echo"))
    process = psutil.Process(server.process.pid)
    time.sleep(1)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    yield [f"CPU while idle, over {seconds:g} s", f"{100 * used / seconds:.1f} %", "", "0 %"]
    yield ["memory while idle (RSS)", f"{process.memory_info().rss / 1e6:.0f} MB", "", "under 80 MB"]


def edits(server: Server, folder: Path, model: Path, rounds: int) -> Iterator[Sequence[str]]:
    """From an atomic save with another alias to the first request that the alias answers."""
    took = []
    for number in range(1, rounds + 1):
        alias = f"alias-{number}"
        time.sleep(0.7 + 0.05 * (number % 7))  # at no fixed place in any interval of the watcher
        text = MANIFEST.format(alias=alias, path=model)
        started = time.perf_counter()
        save(folder / "models.yaml", text)
        until(partial(_answers, server.port, alias))
        took.append(time.perf_counter() - started)
    worst = f"{1000 * max(took):.0f} ms"
    yield [f"save to live alias, {rounds} saves", f"{1000 * statistics.median(took):.0f} ms", worst, "300 ms"]


def _answers(port: int, model: str) -> bool:
    return answers(port, "POST", "/v1/chat/completions", ask(model)) == 200


def ask(model: str) -> bytes:
    """A request for a short answer."""
    return json.dumps({"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "Hello!"}]}).encode()


if __name__ == "__main__":
    main()
