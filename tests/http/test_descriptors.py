"""A server without file descriptors: who connects waits, what needs a worker is told, and then all is well again."""

from __future__ import annotations

import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from localapi.http.listener import ENOUGH_DESCRIPTORS
from localapi.runtime.backoff import TOLERATED
from tests.server import Server, save, serving
from tests.test_environment_faults import ask, error_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets others set a process's limits")


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
                server.wait_for(r"cannot accept connections: Too many open files: the limit of this process is \d+")
                used = sum(process.cpu_times()[:2])
                time.sleep(3)  # in which it could spin
                assert sum(process.cpu_times()[:2]) - used < 1
            assert all(client.recv(12) == b"HTTP/1.1 200" for client in clients)
        assert len([line for line in server.lines if "cannot accept connections" in line]) == 1
        assert not [line for line in server.lines if "Traceback" in line]


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


def test_a_manifest_that_could_not_be_read_is_read_when_it_can_be(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {echo: {backend: echo}}") as server:
        ask(server, "echo")
        with few_descriptors(server, -5):
            save(tmp_path / "models.yaml", "chat: {echo: {backend: echo}, other: {backend: echo}}")
            server.wait_for("manifest rejected: models.yaml: cannot be read: Too many open files")
        server.wait_for(r"reloaded revision 2: \+other")


def test_a_server_allows_itself_as_many_as_it_may(tmp_path: Path) -> None:
    shell = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh"]
    with serving(tmp_path, "chat: {echo: {backend: echo}}", through=shell) as server:
        assert ask(server, "echo").status == 200
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, ENOUGH_DESCRIPTORS) > 256


def test_a_model_loads_where_fewer_are_allowed_than_its_library_asks_for(tmp_path: Path) -> None:
    shell = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh"]
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo}}", through=shell) as server:
        assert ask(server, "demo").status == 200
