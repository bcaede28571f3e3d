"""The processes of a benchmark: functions that run in one of their own, and servers that are measured."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tests.server import Server, serving

P = ParamSpec("P")
Result = TypeVar("Result")
START_SECONDS = 120
OURS, PEER = "bench", "default_model"
"""Names of the model in requests to `ours` and `peer`."""
MANIFEST = "chat: {{{}: {{backend: mlx-lm, path: '{}', preload: true, prefix_cache_disk_mb: {}, speculation: '{}'}}}}"


class Aside:
    """Calls functions in one process beside this one, which keeps what it has loaded."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __call__(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        return self._pool.submit(function, *args, **kwargs).result()

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def localapi_server(folder: Path, port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """This server, in a child process, before it has said anything."""
    return _running("-m", "localapi", "serve", "--manifest", str(folder / "models.yaml"), "--port", str(port))


def mlx_lm_server(model: Path, port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The stock server, in a child process."""
    return _running("-m", "mlx_lm", "server", "--model", str(model), "--port", str(port), "--log-level", "ERROR")


def piper_server(voice: Path, port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Piper's own server, in a child process. It needs Flask, which Quart brings."""
    return _running("-m", "piper.http_server", "--model", str(voice), "--host", "127.0.0.1", "--port", str(port))


@contextlib.contextmanager
def ours(
    model: Path, *, env: Mapping[str, str] | None = None, disk_mb: int = 0, speculation: str = "auto"
) -> Iterator[Server]:
    """This server with the model loaded."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MANIFEST.format(OURS, model, disk_mb, speculation), env=env) as server,
    ):
        server.wait_for(f"{OURS}: loaded")
        yield server


_ON_OUR_BLAS = "from localapi.worker import blas; blas.install_openblas(); from mlx_lm.server import main; main()"


@contextlib.contextmanager
def peer(model: Path, *, on_our_blas: bool = False) -> Iterator[tuple[int, int]]:
    """The port and the process id of the stock server with this model.

    `on_our_blas`: with the library that our workers load, which reads prompts much faster than MLX's own.
    """
    port = free_port()
    arguments = ["--model", str(model), "--port", str(port), "--log-level", "ERROR"]
    with _running("-c", _ON_OUR_BLAS, *arguments) if on_our_blas else mlx_lm_server(model, port) as process:
        until(lambda: answers(port, "GET", "/health") == 200, every=0.2)
        yield port, process.pid


@contextlib.contextmanager
def scripted() -> Iterator[int]:
    """The port of a server whose answers come as a script says."""
    port = free_port()
    with _running("-m", "tests.bench.scripted", str(port)):
        until(lambda: answers(port, "GET", "/v1/models") == 200, every=0.05)
        yield port


@contextlib.contextmanager
def piper_peer(voice: Path) -> Iterator[tuple[int, int]]:
    """The port and the process id of Piper's own server with this voice."""
    port = free_port()
    with piper_server(voice, port) as process:
        until(lambda: answers(port, "GET", "/info") == 200, every=0.2)
        yield port, process.pid


@contextlib.contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def answers(port: int, method: str, path: str, body: bytes | None = None) -> int | None:
    """The status of one request; None where nobody listens or answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            return None
        return reply.status


def until(done: Callable[[], Any], *, every: float = 0.005) -> float:
    """Seconds until `done` is true."""
    started = time.perf_counter()
    while not done():
        if time.perf_counter() - started > START_SECONDS:
            raise TimeoutError
        time.sleep(every)
    return time.perf_counter() - started
