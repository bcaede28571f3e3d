"""Everything goes wrong at once: every request is answered or ends with one good error, and nothing is left behind.

Workers are killed and stopped, the manifest is edited, well and badly, clients leave in the middle, and more ask than
may wait. Short by default; `pytest --long` runs it for minutes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.piper_voice import make_voice
from tests.server import Server, save, serving, until

pytestmark = pytest.mark.soak

CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/speech"
SECONDS_SHORT, SECONDS_LONG = 15, 300
CLIENTS = 10
HUNG_SECONDS = 120
"""A request that takes so long is lost; the slowest here wait for a load or two, and for a worker that hangs."""
EXPECTED = {429, 503, 504}
"""Statuses that a request may get here. A 500 would be a bug."""


@dataclass
class Chaos:
    """Clients that ask, and disturbances."""

    server: Server
    folder: Path
    done: threading.Event = field(default_factory=threading.Event)
    ended: Counter[str] = field(default_factory=Counter)
    """Ends of requests."""
    did: Counter[str] = field(default_factory=Counter)
    """Disturbances."""
    wrong: list[str] = field(default_factory=list)
    crowds: list[threading.Thread] = field(default_factory=list)

    # Requests

    def ask_for_ever(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.done.is_set():
            self.ask(chance)

    def ask(self, chance: random.Random) -> None:
        model = chance.choice(["echo", "demo", "demo", "other", "voice"])
        stream = chance.random() < 0.5
        leaves = chance.random() < 0.15
        try:
            how = self.speak(leaves) if model == "voice" else self.chat(model, stream=stream, leaves=leaves)
        except Exception as error:  # whatever a client can meet is wrong here, and told at the end
            self.wrong.append(f"{model}, {stream=}, {leaves=}: {type(error).__name__}: {error}")
        else:
            self.ended[how] += 1

    def chat(self, model: str, *, stream: bool, leaves: bool) -> str:
        words = " ".join(["word"] * 200) if model == "echo" else "What can you do?"
        body = {"model": model, "messages": [{"role": "user", "content": words}], "stream": stream}
        with self.reply(CHAT, body, leaves=leaves) as reply:
            if reply is None:
                return "left"
            if reply.status != 200 or not stream:
                return verdict(reply.status, json.loads(reply.read()), "choices")
            if leaves:
                reply.readline()
                return "left"
            return verdict_of_stream([line.decode().strip() for line in reply])

    def speak(self, leaves: bool) -> str:
        body = {"model": "voice", "input": "Hello there. " * 5, "response_format": "wav", "stream": False}
        with self.reply(SPEECH, body, leaves=leaves) as reply:
            if reply is None:
                return "left"
            content = reply.read()
            if reply.status == 200:
                assert content.startswith(b"RIFF"), content[:80]
                return "answered"
            return verdict(reply.status, json.loads(content), "")

    @contextlib.contextmanager
    def reply(self, path: str, body: dict[str, Any], *, leaves: bool) -> Any:
        """The reply; None for a client that does not wait for it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=HUNG_SECONDS)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            yield None if leaves and not body.get("stream") else connection.getresponse()
        finally:
            connection.close()

    # Disturbances

    def disturb(self, chance: random.Random, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        deeds = [self.kill, self.stop, self.edit, self.spoil, self.crowd]
        while time.monotonic() < deadline:
            deed = chance.choice(deeds)
            deed(chance)
            self.did[deed.__name__] += 1
            time.sleep(chance.uniform(0.1, 1.2))  # the pace of the disturbance, which nothing waits for

    def kill(self, chance: random.Random) -> None:
        self.signal(chance, signal.SIGKILL)

    def stop(self, chance: random.Random) -> None:
        self.signal(chance, signal.SIGSTOP)

    def signal(self, chance: random.Random, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.Error, IndexError):
            chance.choice(self.workers()).send_signal(number)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.server.process.pid).children()

    def edit(self, chance: random.Random) -> None:
        save(self.folder / "models.yaml", manifest(chance.randrange(1000, 1004), chance.choice([2, 4])))

    def spoil(self, chance: random.Random) -> None:
        save(self.folder / "models.yaml", chance.choice(["chat: [", "chat: {demo: {backend: nothing}}", "chart: {}"]))

    def crowd(self, chance: random.Random) -> None:
        """More requests than may wait; they are among those that have to end well."""
        seeds = [chance.random() for _ in range(12)]
        threads = [threading.Thread(target=self.ask, args=(random.Random(seed),)) for seed in seeds]
        for thread in threads:
            thread.start()
        self.crowds += threads


def manifest(context: int, at_once: int) -> str:
    limits = f"max_concurrent: {at_once}, max_waiting: 4, stall_seconds: 3, queue_timeout_seconds: 30"
    return f"""
server: {{memory_budget: 420MB, drain_seconds: 5}}
chat:
  echo: {{backend: echo}}
  demo: {{backend: mlx-lm, path: demo, {limits}}}
  other: {{backend: mlx-lm, path: demo, context_length: {context}, keep_alive: 2, {limits}}}
speech:
  voice: {{backend: piper, path: ./tiny.onnx, {limits}}}
"""


def verdict(status: int, content: dict[str, Any], answer: str) -> str:
    """Return the end of a whole reply."""
    if status == 200:
        assert answer in content, content
        return "answered"
    check_error(content)
    assert status in EXPECTED, (status, content)
    return f"{status} {content['error']['code']}"


def verdict_of_stream(lines: list[str]) -> str:
    """Return the end of a stream: [DONE], or one error with nothing after it."""
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events, lines
    if events[-1] == "[DONE]":
        assert not any("error" in json.loads(event) for event in events[:-1])
        return "answered"
    *before, last = [json.loads(event) for event in events]
    check_error(last)
    assert not any("error" in event for event in before)
    return f"broken off: {last['error']['code']}"


def check_error(content: dict[str, Any]) -> None:
    assert content.keys() == {"error"}, content
    assert content["error"].keys() == {"message", "type", "param", "code"}, content


def use_and_unload(server: Server) -> None:
    """Every model answers, whatever was before; then none is loaded."""
    for path, model in ((CHAT, "echo"), (CHAT, "demo"), (CHAT, "other"), (SPEECH, "voice")):
        assert server.request("POST", f"/admin/models/{model}/load").status == 200
        said = {"input": "Hello."} if path == SPEECH else {"messages": [{"role": "user", "content": "Hello!"}]}
        assert server.request("POST", path, {"model": model, **said}).status == 200
    for model in ("echo", "demo", "other", "voice"):
        assert server.request("POST", f"/admin/models/{model}/unload").status == 200


@pytest.mark.timeout(900)
def test_whatever_goes_wrong_every_request_ends_well_and_nothing_is_left(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_voice(tmp_path / "tiny.onnx")
    seconds = SECONDS_LONG if request.config.getoption("--long") else SECONDS_SHORT
    with serving(tmp_path, manifest(1000, 2)) as server:
        process = psutil.Process(server.process.pid)
        use_and_unload(server)
        until(lambda: not server.workers())
        descriptors, memory = process.num_fds(), process.memory_info().rss
        chaos = Chaos(server, tmp_path)
        clients = [threading.Thread(target=chaos.ask_for_ever, args=(seed,)) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        chaos.disturb(random.Random(11), seconds)
        chaos.done.set()
        for client in [*clients, *chaos.crowds]:
            client.join()
        print(f"\n{sum(chaos.ended.values())} requests: {dict(chaos.ended)}\ndisturbed by {dict(chaos.did)}")
        assert chaos.wrong == []
        save(tmp_path / "models.yaml", manifest(1000, 2))
        assert server.reload()["ok"]
        use_and_unload(server)
        until(lambda: not server.workers())
        status = server.status()
        assert {(model["leases"], model["waiting"]) for model in status["models"]} == {(0, 0)}
        assert status["memory"]["used_bytes"] == 0
        until(lambda: not server.status()["retiring"])
        until(lambda: process.num_fds() <= descriptors + 2)
        print(f"the server's memory was {memory >> 20} MB and is {process.memory_info().rss >> 20} MB")
        assert process.is_running()
        assert not [line for line in server.lines if "Traceback" in line]
        assert server.wait_for("manifest rejected")
    assert chaos.ended["answered"] > CLIENTS
