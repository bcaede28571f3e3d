"""A day in minutes: mixed load and edits for as long as one likes, after which the server is as large as before.

`pytest tests/test_soak.py --soak=30` runs it for half an hour and holds memory and descriptors of the second quarter
against those of the last. Without the flag it runs for seconds, and only shows that all are answered.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.piper_voice import make_voice
from tests.server import Server, save, serving
from tests.test_chaos import verdict, verdict_of_stream

pytestmark = pytest.mark.soak

CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/speech"
SHORT_MINUTES = 0.15
FLAT_MINUTES = 4.0
"""Below that half of a run is too short to tell growth from a beginning: loaded codecs, full caches of regexes, …"""
SAMPLES = 200
CLIENTS = 4
EDIT_SECONDS = 7.0
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
MEMORY_BYTES = 8 * 2**20
"""Maximum growth in half of the run: fragmentation goes up and down by some megabytes.
Half an hour is some thousand requests, so that a few kilobytes that each leaves behind do not pass."""
DESCRIPTORS = 2
"""The medians may differ by a connection that comes and one that goes."""


@dataclass(frozen=True)
class Sample:
    """The server, at one moment."""

    private_bytes: int
    """Without what it shares with other processes, which is not its own to free."""
    resident_bytes: int
    descriptors: int
    threads: int


@dataclass
class Soak:
    """Clients that ask one after the other, an editor, and the one who measures."""

    server: Server
    folder: Path
    done: threading.Event = field(default_factory=threading.Event)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def run(self, seconds: float) -> list[Sample]:
        """Everything at once, for so long."""
        tasks = [threading.Thread(target=self.ask_for_ever, args=(seed,)) for seed in range(CLIENTS)]
        tasks.append(threading.Thread(target=self.edit_for_ever))
        for task in tasks:
            task.start()
        try:
            return list(self.measured(seconds))
        finally:
            self.done.set()
            for task in tasks:
                task.join()

    def measured(self, seconds: float) -> Iterator[Sample]:
        process = psutil.Process(self.server.process.pid)
        for _ in range(SAMPLES):
            time.sleep(seconds / SAMPLES)
            memory = process.memory_full_info()
            yield Sample(memory.uss, memory.rss, process.num_fds(), process.num_threads())

    def edit_for_ever(self) -> None:
        for number in itertools.count():
            if self.done.wait(EDIT_SECONDS):
                return
            save(self.folder / "models.yaml", manifest(number) if number % 5 else "chat: {demo: {backend: nothing}}")

    def ask_for_ever(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.done.is_set():
            model = chance.choice(["echo", "echo", "demo", "demo", "other", "voice", "voice", "espeak"])
            try:
                self.ended[self.ask(model, chance)] += 1
            except Exception as error:  # whatever a client can meet is wrong here, and told at the end
                self.wrong.append(f"{model}: {type(error).__name__}: {error}")

    def ask(self, model: str, chance: random.Random) -> str:
        if model in {"voice", "espeak"}:
            form = chance.choice(FORMATS)
            path, body = SPEECH, {"model": model, "input": "Hello there. " * 9, "response_format": form}
        else:
            words = " ".join(["word"] * 100) if model == "echo" else "What can you do?"
            path, body = CHAT, {"model": model, "messages": [{"role": "user", "content": words}]}
            body["stream"] = chance.random() < 0.5
        with self.reply(path, body) as reply:
            if chance.random() < 0.1:
                reply.read(10)
                return "left"
            if reply.status != 200:
                return verdict(reply.status, json.loads(reply.read()), "")
            if path == SPEECH:
                assert len(reply.read()) > 1000
                return "spoken"
            if body["stream"]:
                return verdict_of_stream([line.decode().strip() for line in reply])
            return verdict(200, json.loads(reply.read()), "choices")

    @contextlib.contextmanager
    def reply(self, path: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=120)) as connection:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            yield connection.getresponse()


def manifest(number: int) -> str:
    """An alias changes with each edit, and with every fourth the model that is loaded."""
    return f"""
chat:
  echo: {{backend: echo, aliases: [echo-{number}]}}
  demo: {{backend: mlx-lm, path: demo}}
  other: {{backend: mlx-lm, path: demo, context_length: {1000 + number // 4 % 2}, keep_alive: 2}}
speech:
  voice: {{backend: piper, path: ./tiny.onnx}}
  espeak: {{backend: espeak-ng}}
"""


def quarters(samples: Sequence[Sample], name: str) -> list[float]:
    """The median of a figure in each quarter."""
    size = len(samples) // 4
    return [
        statistics.median(getattr(sample, name) for sample in samples[start : start + size])
        for start in range(0, 4 * size, size)
    ]


def show(soak: Soak, samples: Sequence[Sample]) -> None:
    print(f"\n{sum(soak.ended.values())} requests: {dict(soak.ended)}; medians of the quarters:")
    for name in ("private_bytes", "resident_bytes"):
        print(f"  {name}: {', '.join(f'{value / 2**20:.1f} MB' for value in quarters(samples, name))}")
    for name in ("descriptors", "threads"):
        print(f"  {name}: {', '.join(f'{value:g}' for value in quarters(samples, name))}")


@pytest.mark.timeout(0)  # as long as was asked for; each request has a limit of its own
def test_the_server_is_as_large_after_long_use_as_before(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    minutes = request.config.getoption("--soak") or SHORT_MINUTES
    make_voice(tmp_path / "tiny.onnx")
    with serving(tmp_path, manifest(0)) as server:
        soak = Soak(server, tmp_path)
        samples = soak.run(minutes * 60)
        show(soak, samples)
        assert soak.wrong == []
        assert soak.ended.keys() <= {"answered", "spoken", "left"}
        assert {"answered", "spoken"} <= soak.ended.keys()
        if minutes >= FLAT_MINUTES:
            _, before, _, after = quarters(samples, "private_bytes")
            assert after <= before + MEMORY_BYTES
            _, before, _, after = quarters(samples, "descriptors")
            assert after <= before + DESCRIPTORS
