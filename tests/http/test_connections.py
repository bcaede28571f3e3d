"""Clients that come and go in every way leave nothing behind, and none keeps the server from ending."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.server import Server, save, serving

MESSAGES = [{"role": "user", "content": "go"}]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, "chat: {echo: {backend: echo}}") as server:
        yield server


def posted(body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def test_closed_connections_give_their_descriptors_back(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    server.get("/health")
    before = process.num_fds()
    for _ in range(200):
        server.get("/health")
    while process.num_fds() > before + 10:
        pass  # the time limit of the test is the bound


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_right_after_asking_holds_nothing(
    tmp_path: Path, endless_model: Path, stream: bool
) -> None:
    with serving(tmp_path, f"chat: {{endless: {{backend: mlx-lm, path: {endless_model}}}}}") as server:
        body = {"model": "endless", "messages": MESSAGES, "stream": stream, "temperature": 0}
        server.request("POST", "/v1/chat/completions", {**body, "stream": False, "max_tokens": 1})
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(posted(body))
        while server.model("endless")["leases"]:
            pass


def test_a_client_that_sent_more_than_its_request_and_leaves_holds_nothing(tmp_path: Path, endless_model: Path) -> None:
    with serving(
        tmp_path, f"chat: {{endless: {{backend: mlx-lm, path: {endless_model}, context_length: 90000}}}}"
    ) as server:
        body = posted({"model": "endless", "messages": MESSAGES, "temperature": 0})
        for more in (b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(body + more)
                while not server.model("endless")["leases"]:
                    pass
            while server.model("endless")["leases"]:
                pass


def test_requests_that_come_before_the_reply_are_answered_in_their_order(server: Server) -> None:
    said = b"".join(
        posted({"model": "echo", "messages": [{"role": "user", "content": word}]}) for word in ("one", "two")
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(said + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        told = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert [told.count(b"HTTP/1.1 200"), *(told.count(word) for word in (b'"one"', b'"two"'))] == [3, 1, 1]
    assert told.index(b'"one"') < told.index(b'"two"') < told.index(b'{"status":"ok"}')


def test_a_client_that_does_not_read_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "server: {drain_seconds: 0.5}\nchat: {echo: {backend: echo}}")
    server = Server(tmp_path)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        text = "word " * 100_000
        deaf.sendall(posted({"model": "echo", "messages": [{"role": "user", "content": text}], "stream": True}))
        deaf.recv(100)
        server.send_signal(signal.SIGTERM)
        assert server.stop() == 0


def test_who_asks_for_a_web_socket_is_answered_as_if_not(server: Server) -> None:
    right = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    asked = [("/x", "", right), ("/health", "", right), ("/status", ", close", "")]  # the last handshake is none
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for path, more, handshake in asked:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade{more}\r\n"
            connection.sendall(f"{head}{handshake}\r\n".encode())
        told = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", told) == [b"404", b"200", b"200"]
    assert not [line for line in server.lines if "Traceback" in line]


def test_numbers_that_no_worker_can_be_sent_are_refused(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"maximum": 10**30}}}
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo}}") as server:
        body = {"model": "demo", "messages": MESSAGES, "tools": [tool]}
        reply = server.request("POST", "/v1/chat/completions", body)
        assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_model_name_of_megabytes_is_refused_in_a_line(server: Server) -> None:
    reply = server.request("POST", "/v1/chat/completions", {"model": "m" * 5_000_000, "messages": MESSAGES})
    assert (reply.status, reply.json()["error"]["param"]) == (400, "model")
    assert len(reply.body) < 1000
