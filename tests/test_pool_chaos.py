"""A pool over everything there is, while its members are killed, stopped and restarted, and the file is edited.

Members are two other localapi servers, mlx_lm.server, a program, and a server that answers garbage; with
`pytest --long`, which runs for minutes, also replicas and ranks. Each answer has to be that of its own question. No
request fails for which nothing was sent while a prober found a member healthy all the time.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from localapi.backends.model_path import DEMO_FOLDER
from tests.server import Server, save, serving, until
from tests.test_chaos import check_error

pytestmark = pytest.mark.soak

CHAT = "/v1/chat/completions"
ROOT = Path(__file__).parent.parent
STREAMS = 16
SECONDS_SHORT, SECONDS_LONG = 8, 300
REQUEST_SECONDS = 120
"""A request that takes so long is lost."""
PROBE_SECONDS = 2.0
"""A member that answers no probe for so long is not healthy."""
QUESTIONS = ("What can you do?", "Hello!", "What is the capital of France?", "Tell me a joke.", "Count to five.")
OURS = {500}
"""Statuses that no request may get: they would be bugs."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@dataclass
class Member:
    """Another server, which comes and goes."""

    command: list[str]
    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def end(self) -> None:
        """Kill it with all that it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PROBE_SECONDS)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/v1/models")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False


class Garbage(BaseHTTPRequestHandler):
    """A server that has understood nothing."""

    protocol_version = "HTTP/1.1"
    answers = (
        b"\x00\xff\x00 this is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: not JSON\n\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"choices\": 7}\n\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"choices\": [",
        b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-type: text/event-stream\r\n\r\ndata: {}\n\n",
        b"",
    )  # fmt: skip
    chance = random.Random(5)

    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "garbage"}]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.wfile.write(self.chance.choice(self.answers))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Storm:
    """Clients, disturbances, and a watch on the members."""

    server: Server
    folder: Path
    members: dict[str, Member]
    long: bool
    garbage: int
    expected: dict[str, set[str]] = field(default_factory=dict)
    """Allowed answers to each question."""
    done: threading.Event = field(default_factory=threading.Event)
    ended: Counter[str] = field(default_factory=Counter)
    did: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[tuple[float, float, str]] = field(default_factory=list)
    """Requests that got nothing: from when to when, and why."""
    looks: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)
    """Times at which each member was probed, with its health."""

    # Requests

    def ask_for_ever(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.done.is_set():
            question, stream = chance.choice(QUESTIONS), chance.random() < 0.75
            began = time.monotonic()
            try:
                how = self.ask(question, stream=stream, leaves=chance.random() < 0.1)
            except Exception as error:  # whatever a client can meet is wrong here, and told at the end
                how = f"{type(error).__name__}: {error}"
                self.wrong.append(f"{question!r}, {stream=}: {how}")
            self.ended[how.partition(":")[0]] += 1
            if how.startswith("failed"):
                self.failed.append((began, time.monotonic(), how))

    def ask(self, question: str, *, stream: bool, leaves: bool) -> str:
        body = {"model": "pool", "messages": [{"role": "user", "content": question}], "stream": stream}
        body |= {"temperature": 0, "max_tokens": 24}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=REQUEST_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            if leaves:
                reply.readline()
                return "left"
            if reply.status != 200:
                content = json.loads(reply.read())
                check_error(content)
                assert reply.status not in OURS, content
                return f"failed: {reply.status} {content['error']['message']}"
            if not stream:
                self.check(question, json.loads(reply.read())["choices"][0]["message"]["content"], complete=True)
                return "answered"
            return self.follow(question, reply)

    def follow(self, question: str, reply: http.client.HTTPResponse) -> str:
        """Return the end of a stream."""
        said, error, ended = "", None, False
        for line in reply:
            data = line.decode().strip().removeprefix("data: ")
            if not line.startswith(b"data: "):
                continue
            assert not ended, "something came after the end"
            assert error is None, "something came after an error"
            if data == "[DONE]":
                ended = True
                continue
            event = json.loads(data)
            if "error" in event:
                error = event
            elif event["choices"]:
                assert event["model"] == "pool"
                said += event["choices"][0]["delta"].get("content") or ""
        assert ended != (error is not None), "a stream has one end"
        self.check(question, said, complete=ended)
        if error is None:
            return "answered"
        check_error(error)
        return f"broken off: {error['error']['code']}" if said else f"failed: {error['error']['message']}"

    def check(self, question: str, said: str, *, complete: bool) -> None:
        """Raise if this is not what the question is answered."""
        right = said in self.expected[question]
        if not complete:
            right = any(each.startswith(said) for each in self.expected[question])
        assert right, f"another question's answer? {said!r}"

    # Health

    def look_for_ever(self, name: str) -> None:
        looks = self.looks[name] = []
        while not self.done.is_set():
            began = time.monotonic()
            healthy = self.members[name].answers()
            looks.append((began, healthy))
            time.sleep(0.02)

    def needless_failures(self) -> list[str]:
        """Requests that got nothing, although a member was healthy before, during and after."""
        found = []
        for began, ended, how in self.failed:
            for name, looks in self.looks.items():
                before = [healthy for at, healthy in looks if at < began][-1:]
                during = [healthy for at, healthy in looks if began <= at <= ended]
                after = [healthy for at, healthy in looks if at > ended][:1]
                if before and after and all(before + during + after):
                    found.append(f"{how} although {name} was healthy")
        return found

    # Disturbances

    def disturb(self, chance: random.Random, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for deed in itertools.cycle([self.kill, self.edit, self.kill_worker, self.stop, self.edit]):
            if time.monotonic() > deadline:
                return
            deed(chance)
            self.did[deed.__name__] += 1
            time.sleep(chance.uniform(0.1, 0.8))  # the pace of the disturbance, which nothing waits for

    def kill(self, chance: random.Random) -> None:
        member = chance.choice(list(self.members.values()))
        member.end()
        time.sleep(chance.uniform(0.0, 1.0))
        member.start()

    def stop(self, chance: random.Random) -> None:
        member = chance.choice(list(self.members.values()))
        member.signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.1, 3.0 if self.long else 1.0))
        member.signal(signal.SIGCONT)

    def kill_worker(self, chance: random.Random) -> None:
        """Kill a process of the server itself: the program, a replica or a rank."""
        children = psutil.Process(self.server.process.pid).children(recursive=True)
        with contextlib.suppress(psutil.Error, IndexError):
            chance.choice(children).kill()

    def edit(self, chance: random.Random) -> None:
        save(self.folder / "models.yaml", self.manifest(chance))

    def manifest(self, chance: random.Random) -> str:
        names = [*self.members, "program", "garbage", *(["replicas", "ranks"] if self.long else [])]
        of = chance.sample(names, len(names))
        entries: dict[str, Any] = {
            name: {
                "backend": "openai", "url": f"http://127.0.0.1:{member.port}", "model": MODELS[name],
                "idle_seconds": 2, "max_concurrent": chance.choice([8, 16, 32]),
            }
            for name, member in self.members.items()
        }  # fmt: skip
        entries["program"] = {
            "backend": "command",
            "command": [sys.executable, str(ROOT / "tests" / "hostile_program.py"), "{port}"],
        }
        entries["garbage"] = {"backend": "openai", "url": f"http://127.0.0.1:{self.garbage}", "idle_seconds": 1}
        if self.long:
            entries["replicas"] = {"backend": "mlx-lm", "path": "demo", "replicas": 2}
            entries["ranks"] = {"backend": "mlx-lm", "path": "demo", "shards": 2, "stall_seconds": 10}
        limits = {"connect": 1, "first_token": chance.choice([5, 8])}
        entries["pool"] = {
            "backend": "pool", "of": of, "choose": chance.choice(["in-order", "least-busy", "sticky"]),
            "give_up_after": limits,
        }  # fmt: skip
        if chance.random() < 0.5:
            entries["pool"]["spill_over_at"] = 4
        return json.dumps({"chat": entries})


MODELS = {"demo": "demo", "echo": "echo", "mlx": "default_model"}


def localapi_member(folder: Path, entry: str) -> Member:
    folder.mkdir()
    save(folder / "models.yaml", f"chat: {entry}")
    port = free_port()
    return Member([sys.executable, "-m", "localapi", "serve", "--port", str(port)], port, folder)


@contextlib.contextmanager
def members(folder: Path) -> Iterator[dict[str, Member]]:
    port = free_port()
    found = {
        "demo": localapi_member(folder / "one", "{demo: {backend: mlx-lm, path: demo, preload: true}}"),
        "echo": localapi_member(folder / "two", "{echo: {backend: echo}}"),
        "mlx": Member(
            [sys.executable, "-m", "mlx_lm", "server", "--model", str(DEMO_FOLDER), "--port", str(port)], port, folder
        ),
    }
    try:
        for member in found.values():
            member.start()
        until(lambda: all(member.answers() for member in found.values()))
        yield found
    finally:
        for member in found.values():
            member.end()


@contextlib.contextmanager
def garbage() -> Iterator[int]:
    """The port of a server that answers garbage."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Garbage)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answers_of(server: Server, model: str, question: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 24}
    reply = server.request("POST", CHAT, body)
    assert reply.status == 200, reply.body
    return str(reply.json()["choices"][0]["message"]["content"])


def traces(lines: list[str]) -> list[str]:
    """Return each traceback of a log, with what follows it."""
    return ["\n".join(lines[at : at + 40]) for at, line in enumerate(lines) if "Traceback" in line]


@pytest.mark.timeout(900)
def test_a_pool_answers_as_long_as_a_member_can_and_nothing_is_mixed_or_left(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_long = bool(request.config.getoption("--long"))
    with contextlib.ExitStack() as held:
        others = held.enter_context(members(tmp_path))
        port = held.enter_context(garbage())
        save(tmp_path / "models.yaml", "chat: {spare: {backend: echo}}")
        server = held.enter_context(serving(tmp_path))
        assert server.reload()["ok"]
        answers_of(server, "spare", "Hello!")
        process = psutil.Process(server.process.pid)
        descriptors = process.num_fds()
        storm = Storm(server, tmp_path, others, is_long, port)
        save(tmp_path / "models.yaml", storm.manifest(random.Random(1)))
        assert server.reload()["ok"]
        for question in QUESTIONS:
            answers = {answers_of(server, name, question) for name in (*others, "program")}
            storm.expected[question] = answers | {f"{question}."}  # the program streams a full stop as well
        clients = [threading.Thread(target=storm.ask_for_ever, args=(seed,)) for seed in range(STREAMS)]
        probers = [threading.Thread(target=storm.look_for_ever, args=(name,)) for name in others]
        for thread in [*probers, *clients]:
            thread.start()
        storm.disturb(random.Random(13), SECONDS_LONG if is_long else SECONDS_SHORT)
        storm.done.set()
        for thread in [*clients, *probers]:
            thread.join()
        print(f"\n{sum(storm.ended.values())} requests: {dict(storm.ended)}\ndisturbed by {dict(storm.did)}")
        assert storm.wrong + storm.needless_failures() == []
        assert storm.ended["answered"] > STREAMS
        status = server.status()
        assert {(model["leases"], model["waiting"]) for model in status["models"]} == {(0, 0)}
        save(tmp_path / "models.yaml", "chat: {spare: {backend: echo}}")
        assert server.reload()["ok"]
        until(lambda: not server.status()["retiring"] and not server.workers())
        until(lambda: process.num_fds() <= descriptors + 2)
        # The program is mlx_lm.server, which logs one if its client leaves.
        assert [trace for trace in traces(server.lines) if " program: " not in trace.splitlines()[0]] == []
