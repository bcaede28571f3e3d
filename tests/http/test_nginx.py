"""nginx in front, as its package configures it and with nothing but `proxy_pass`: what streams, streams on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server import Reached, Reply, Server, serving

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")

CHAT = "/v1/chat/completions"
ASKED: Any = {"model": "endless", "messages": [{"role": "user", "content": "go"}], "temperature": 0, "stream": True}
CONFIG = """
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{behind}; }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def nginx_before(server: Server, folder: Path) -> Iterator[int]:
    """nginx on a port of its own, from when it answers."""
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(user=user, folder=folder, port=port, behind=server.port))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)])
    try:
        while True:
            assert process.poll() is None, (folder / "error.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> Iterator[Server]:
    manifest = f"""
    chat: {{m: {{backend: echo}}, endless: {{backend: mlx-lm, path: {endless_model}, context_length: 90000}}}}
    speech: {{s: {{backend: echo}}}}
    """
    with serving(tmp_path_factory.mktemp("behind"), manifest) as server:
        yield server


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[Reached]:
    with nginx_before(server, tmp_path_factory.mktemp("nginx")) as port, contextlib.closing(Reached(port)) as proxied:
        yield proxied


@pytest.mark.parametrize("path", ["/status/events", CHAT])
def test_what_has_no_end_comes_through_while_it_is_made(proxied: Reached, path: str) -> None:
    bodies = {CHAT: ASKED}
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=60) as connection:
        body = json.dumps(bodies[path]).encode() if path in bodies else b""
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answered = b""
        while b"\r\n\r\n" not in answered or answered.endswith(b"\r\n\r\n"):  # and something after the head
            answered += connection.recv(65536)
    assert answered.startswith(b"HTTP/1.1 200")


def test_speech_asks_not_to_be_collected(server: Server) -> None:
    asked = {"model": "s", "input": "hello", "response_format": "pcm"}
    assert server.request("POST", "/v1/audio/speech", asked).headers["x-accel-buffering"] == "no"


def test_the_official_client_gets_its_errors(proxied: Reached) -> None:
    with pytest.raises(openai.NotFoundError):
        proxied.client().chat.completions.create(model="nope", messages=ASKED["messages"])


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/nothing", 404), ("PUT", "/v1/models", 405), ("POST", CHAT, 400)]
)
def test_a_refusal_comes_through_whatever_was_sent(proxied: Reached, method: str, path: str, status: int) -> None:
    replies: list[Reply] = [proxied.request(method, path, b"x" * 900_000) for _ in range(5)]
    assert [reply.status for reply in replies] == [status] * 5


def test_whether_the_server_lives_is_seen(proxied: Reached) -> None:
    assert proxied.get("/health") == {"status": "ok"}
