"""What a machine does to a server: no descriptors, no rights, folders that go, clocks that jump, drives that go.

Each time: one error that says what to do, other models go on, and all is well again once the cause is gone.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from localapi.restarts import TOLERATED
from tests.piper_voice import make_voice
from tests.server import Reply, Server, save, serving

ROOT = Path(__file__).parent.parent
CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/speech"
NOBODY = 65534
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="prlimit() sets another process's limits on Linux only")


def ask(server: Server, model: str) -> Reply:
    if model == "voice":
        return server.request("POST", SPEECH, {"model": model, "input": "Hello."})
    return server.request("POST", CHAT, {"model": model, "messages": [{"role": "user", "content": "Hello!"}]})


def until(condition: Callable[[], object]) -> None:
    """The test's time limit is the bound."""
    while not condition():
        pass


def error_of(reply: Reply) -> str:
    assert (reply.status, reply.json()["error"]["code"]) == (503, "model_unavailable")
    message = reply.json()["error"]["message"]
    assert isinstance(message, str)
    return message


# Descriptors


@contextmanager
def few_descriptors(server: Server, more: int) -> Iterator[None]:
    """The server may open only so many more files; below zero: also none in the place of those that it closes."""
    process = psutil.Process(server.process.pid)
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + more, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


@linux_only
def test_without_descriptors_new_connections_wait_and_the_log_says_so_once(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {echo: {backend: echo}}") as server:
        process, waiting = psutil.Process(server.process.pid), 12
        ask(server, "echo")
        with ExitStack() as held:
            with few_descriptors(server, 2):
                clients = [
                    held.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
                    for _ in range(waiting)
                ]
                for client in clients:
                    client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                server.wait_for(r"a connection could not be taken: Too many open files: this process may have \d+")
                used = sum(process.cpu_times()[:2])
                time.sleep(3)  # in which it could spin
                assert sum(process.cpu_times()[:2]) - used < 1
            assert all(client.recv(12) == b"HTTP/1.1 200" for client in clients)
        assert len([line for line in server.lines if "could not be taken" in line]) == 1
        assert not [line for line in server.lines if "Traceback" in line]


@linux_only
def test_a_worker_that_cannot_start_is_told_and_starts_once_there_are_descriptors(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {echo: {backend: echo}, demo: {backend: mlx-lm, path: demo}}") as server:
        ask(server, "echo")
        for more in (1, 2, 4):  # the connection, and then nothing, a socket, a pipe
            with few_descriptors(server, more):
                replies = [ask(server, "demo") for _ in range(TOLERATED + 1)]
                assert ask(server, "echo").status == 200
            for reply in replies:
                assert "Too many open files" in error_of(reply)
                assert "ulimit -n" in error_of(reply)
                assert "x-should-retry" not in reply.headers
                assert int(reply.headers["retry-after"]) > 0
        assert server.model("demo")["failures_in_a_row"] == 0
        assert ask(server, "demo").status == 200
        assert not [line for line in server.lines if "Traceback" in line]


@linux_only
def test_a_manifest_that_could_not_be_read_is_read_when_it_can_be(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {echo: {backend: echo}}") as server:
        ask(server, "echo")
        with few_descriptors(server, -5):
            save(tmp_path / "models.yaml", "chat: {echo: {backend: echo}, other: {backend: echo}}")
            server.wait_for("manifest refused: models.yaml: cannot be read: Too many open files")
        server.wait_for(r"reloaded revision 2: \+other")


# Folders and rights


def test_a_folder_deleted_while_loaded_disturbs_nothing_and_may_come_back(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "localapi/demo/model", tmp_path / "model")
    make_voice(tmp_path / "tiny.onnx")
    manifest = """
chat: {echo: {backend: echo}, demo: {backend: mlx-lm, path: ./model}}
speech: {voice: {backend: piper, path: ./tiny.onnx}}
"""
    with serving(tmp_path, manifest) as server:
        files = {"demo": tmp_path / "model", "voice": tmp_path / "tiny.onnx"}
        for model, file in files.items():
            assert ask(server, model).status == 200
            file.rename(f"{file}.away")
            assert ask(server, model).status == 200
            assert any(str(file) in problem["message"] for problem in server.reload()["problems"])
            assert server.request("POST", f"/admin/models/{model}/unload").status == 200
            for _ in range(TOLERATED + 1):
                assert f"{file} does not exist" in error_of(ask(server, model))
            assert ask(server, "echo").status == 200
            Path(f"{file}.away").rename(file)
            assert ask(server, model).status == 200
        assert server.reload()["ok"]


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[Path]:
    """A folder to serve from as a user without rights, whom rights do not pass by as they do root."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    folder = Path("/var/tmp") / f"localapi-{os.getpid()}"
    shutil.copytree(ROOT / "localapi/demo/model", folder / "model")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# Clocks

_CLOCK = """
import os, time
real, real_ns, place = time.time, time.time_ns, os.environ["TEST_CLOCK"]
def jump():
    with open(place) as file:
        return float(file.read() or 0)
time.time = lambda: real() + jump()
time.time_ns = lambda: real_ns() + int(jump() * 1e9)
"""


@pytest.mark.parametrize("jump", [-7 * 86400.0, 7 * 86400.0])
def test_a_clock_that_jumps_unloads_nothing_and_ends_no_pause(tmp_path: Path, jump: float) -> None:
    shutil.copytree(ROOT / "localapi/demo/model", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nothing")
    with patched(tmp_path, _CLOCK) as environment:
        clock = tmp_path / "clock"
        clock.write_text("0")
        manifest = """
chat:
  kept: {backend: mlx-lm, path: demo, keep_alive: 10m}
  brief: {backend: mlx-lm, path: demo, keep_alive: 3}
  broken: {backend: mlx-lm, path: ./model}
"""
        with serving(tmp_path, manifest, env={**environment, "TEST_CLOCK": str(clock)}) as server:
            assert ask(server, "kept").status == 200
            for _ in range(TOLERATED + 2):
                server.request("POST", "/admin/models/broken/load")
            pid = server.model("kept")["pid"]
            save(clock, str(jump))
            assert abs(server.status()["now"] - time.time() - jump) < 60
            assert ask(server, "brief").status == 200
            until(lambda: server.model("brief")["state"] == "unloaded")
            assert server.model("kept")["pid"] == pid
            for _ in range(TOLERATED):
                ask(server, "broken")
            assert 0 < int(ask(server, "broken").headers["retry-after"]) <= 300
            cools_down = server.model("broken")["cooling_down_until"] - server.status()["now"]
            assert -1 < cools_down <= 300
            save(tmp_path / "models.yaml", manifest.replace("10m", "20m"))
            server.wait_for("reloaded revision 2: =kept")


# Network drives

_DRIVE = """
import errno, io, os
away, real = os.environ["TEST_DRIVE_AWAY"], {"open": io.open, "stat": os.stat}
def fails(name):
    def call(path, *rest, **options):
        if str(path).endswith("models.yaml") and real["stat"].__call__ and os.access(away, os.F_OK):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return real[name](path, *rest, **options)
    return call
io.open, os.stat = fails("open"), fails("stat")
"""


@contextmanager
def patched(tmp_path: Path, code: str) -> Iterator[dict[str, str]]:
    """The environment of a server in which this code runs before all other."""
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    yield {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_a_change_that_the_system_does_not_tell_is_found(tmp_path: Path) -> None:
    """As on a network drive, where another machine writes: here under another name of the same file."""
    (tmp_path / "elsewhere").mkdir()
    with serving(tmp_path, "chat: {echo: {backend: echo}}") as server:
        os.link(tmp_path / "models.yaml", tmp_path / "elsewhere" / "file")
        (tmp_path / "elsewhere" / "file").write_text("chat: {echo: {backend: echo}, other: {backend: echo}}")
        server.wait_for(r"reloaded revision 2: \+other")
        (tmp_path / "elsewhere" / "file").write_text("chat: {echo: [}")
        server.wait_for("revision 2 serves on")
        time.sleep(5)  # nothing is to happen: it was told
        assert len([line for line in server.lines if "manifest refused" in line]) == 1


def test_a_drive_that_is_away_changes_nothing_and_is_read_when_it_is_back(tmp_path: Path) -> None:
    away = tmp_path / "away"
    with (
        patched(tmp_path, _DRIVE) as environment,
        serving(tmp_path, "chat: {echo: {backend: echo}}", env={**environment, "TEST_DRIVE_AWAY": str(away)}) as server,
    ):
        away.touch()
        problems: list[dict[str, Any]] = server.reload()["problems"]
        assert "cannot be read: Stale file handle: is the drive connected?" in problems[0]["message"]
        assert ask(server, "echo").status == 200
        save(tmp_path / "models.yaml", "chat: {echo: {backend: echo}, other: {backend: echo}}")
        away.unlink()
        server.wait_for(r"reloaded revision 2: \+other")
        assert server.status()["last_attempt"]["ok"]
