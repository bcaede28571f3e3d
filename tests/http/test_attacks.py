"""Attacks on a real server. Those that other tests cover are not repeated here:
hosts and origins in test_sites, shapes of requests in test_serving, keys in test_keys, what is logged in test_log, YAML
in manifest/, sound in audio/test_decoder, arguments of `say` and espeak in backends/ and worker/.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli
import psutil
import pytest

from tests.server import Server, save, serving

CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/speech"
SAID = [{"role": "user", "content": "hi"}]
CANARY = "canary-in-a-file-that-nobody-may-read"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "secret.txt").write_text(CANARY)
    (folder / "allowed").mkdir()
    (folder / "allowed" / "link").symlink_to(folder / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    manifest = """
    chat: {m: {backend: echo}, demo: {backend: mlx-lm, path: demo}}
    speech: {s: {backend: echo, unsupported: warn, audio_folders: [allowed]}}
    """
    with serving(folder, manifest) as server:
        yield server
        assert not [line for line in server.lines if CANARY in line or "Traceback" in line]


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    answered = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            answered += piece
    return answered


# Names that are paths


def paths(folder: Path) -> list[str]:
    secret = folder / "secret.txt"
    return [
        str(secret), "../secret.txt", f"file://{secret}", "allowed/../secret.txt", "link", "./link", "/etc/passwd",
        "..%2fsecret.txt", "secret.txt\0.wav", "~/x", "$HOME", "`id`", "../" * 50 + "etc/passwd", "\\\\host\\share",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "body"),
    [
        (CHAT, {"messages": SAID, "model": "PATH"}),
        ("/v1/completions", {"prompt": "x", "model": "PATH"}),
        ("/v1/tokenize", {"text": "x", "model": "PATH"}),
        (SPEECH, {"input": "x", "model": "PATH"}),
        (SPEECH, {"input": "x", "model": "s", "voice": "PATH"}),
        (SPEECH, {"input": "x", "model": "s", "ref_audio": "PATH"}),
        (SPEECH, {"input": "x", "model": "s", "source_audio": "PATH"}),
        (SPEECH, {"input": "x", "model": "s", "ref_audio": "file:PATH"}),
        (CHAT, {"messages": SAID, "model": "m", "adapter": "PATH", "draft": "PATH", "path": "PATH"}),
        (CHAT, {"messages": SAID, "model": "demo", "max_tokens": 2, "chat_template_kwargs": {"chat_template": "PATH"}}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio", "path": "PATH"}]}], "model": "m"}),
        (CHAT, {"messages": SAID, "model": "demo", "grammar": "%import PATH", "max_tokens": 2}),
        (CHAT, {"messages": SAID, "model": "demo", "max_tokens": 2, "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "file:PATH"}}}}),
    ],
)  # fmt: skip
def test_no_field_of_a_request_opens_a_file(server: Server, folder: Path, where: str, body: dict[str, Any]) -> None:
    before = server.request("GET", "/v1/models").body
    for path in paths(folder):
        text = json.dumps(body).replace("PATH", json.dumps(path)[1:-1])
        reply = server.request("POST", where, text.encode())
        assert reply.status in (200, 400, 404), (path, reply.body)
        assert CANARY.encode() not in reply.body
        assert b"root:" not in reply.body
    assert server.request("GET", "/v1/models").body.count(b'"id"') == before.count(b'"id"')


def test_no_path_of_a_url_opens_a_file(server: Server, folder: Path) -> None:
    for path in paths(folder):
        for prefix in ("/", "/v1/models/", "/static/", "/v1/audio/voices?model="):
            quoted = "".join(f"%{byte:02x}" for byte in path.encode())
            reply = server.request("GET", prefix + quoted)
            assert reply.status in (308, 404)  # two slashes are led to one
            assert reply.headers.get("location", server.url).startswith(server.url)
            assert CANARY.encode() not in reply.body


def test_a_profile_is_chosen_by_who_starts_the_server_only(server: Server) -> None:
    for path in ("/admin/reload?profile=../../etc/passwd", "/admin/reload?manifest=/etc/passwd"):
        assert server.request("POST", path, {"manifest": "/etc/passwd"}).json()["changes"]["changed"] == []


# Bodies


def test_a_compressed_body_is_not_unpacked_beyond_the_limit(server: Server) -> None:
    spaces = b" " * 200_000_000 + b"{}"
    bombs = {"gzip": gzip.compress(spaces), "deflate": zlib.compress(spaces), "br": brotli.compress(spaces, quality=1)}
    memory = psutil.Process(server.process.pid).memory_info().rss
    for coding, bomb in bombs.items():
        for _ in range(3):
            assert server.request("POST", CHAT, bomb, {"Content-Encoding": coding}).status == 413
        assert server.request("POST", CHAT, bomb, {"Content-Encoding": f"{coding}, {coding}"}).status == 415
    assert psutil.Process(server.process.pid).memory_info().rss - memory < 50e6


def test_a_body_without_an_end_is_refused_and_not_kept(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    memory = process.memory_info().rss
    with connected(server) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with contextlib.suppress(OSError):  # the server has had enough
            for _ in range(4000):  # 262 MB
                connection.sendall(chunk)
        assert process.memory_info().rss - memory < 150e6
        answered = answer(connection)
    assert answered == b"" or answered.startswith(b"HTTP/1.1 413")
    assert server.request("GET", "/health").status == 200


def test_a_body_that_says_it_is_endless_is_refused_before_it_comes(server: Server) -> None:
    with connected(server) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**15}\r\n\r\n"
        connection.sendall(head.encode())
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection)[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400", b"")
    assert server.request("GET", "/health").status == 200


def test_a_body_that_nobody_reads_ends_its_connection(server: Server) -> None:
    for request_line in ("POST /nothing", "GET /v1/models", "PUT /v1/models"):
        with connected(server) as connection:
            connection.sendall(
                f"{request_line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf".encode()
            )
            answered = answer(connection)
        assert answered.count(b"HTTP/1.1") == 1


def test_a_hundred_slow_clients_keep_nobody_waiting(server: Server) -> None:
    with contextlib.ExitStack() as slow:
        for number in range(100):
            connection = slow.enter_context(connected(server))
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            connection.sendall(head if number % 2 else head + b"Content-Length: 100\r\n\r\n{")
        started = time.monotonic()
        assert server.request("POST", CHAT, {"model": "m", "messages": SAID}).status == 200
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "messages": ' + b"[" * 5_000_000,
        b'{"model": "m", "messages": [], "x": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
        b'{"model": "m", "seed": ' + b"9" * 5_000_000 + b"}",
        b'{"model": "m", "temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "m", "temperature": NaN}',
        b'{"model": "m", "model": ' + b'"x", "model": ' * 300_000 + b'"m"}',
        b'{"model": "m", "messages": [' + b'{"role": "user", "content": ""},' * 200_000 + b"{}]}",
        json.dumps({"model": "m", "messages": SAID} | {f"\0\r\nx: y{number}": 1 for number in range(50_000)}).encode(),
        json.dumps({"model": "demo", "messages": SAID, "max_tokens": 1, "regex": "(a{1000}){1000}{1000}"}).encode(),
        json.dumps({"model": "demo", "messages": SAID, "max_tokens": 1, "regex": "(a|a)*" * 500 + "b"}).encode(),
    ],
    ids=lambda body: repr(body[:50]),
)  # fmt: skip
def test_a_body_made_to_be_costly_is_answered_soon(server: Server, body: bytes) -> None:
    started = time.monotonic()
    reply = server.request("POST", CHAT, body)
    assert reply.status in (200, 400), reply.body[:300]
    assert len(reply.body) < 10_000
    assert "x" not in reply.headers
    assert time.monotonic() - started < 30
    assert server.request("GET", "/health").status == 200


def test_a_web_page_can_neither_ask_nor_read_with_a_simple_request(server: Server) -> None:
    """Send what a form or a no-cors fetch may send without a preflight."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        for path in (CHAT, "/admin/reload"):
            headers = {"Origin": "https://evil.example", "Content-Type": kind}
            assert server.request("POST", path, {"model": "m", "messages": SAID}, headers).status == 403


# The machine


def test_nothing_is_written_where_the_server_was_started(server: Server, folder: Path) -> None:
    server.request("POST", CHAT, {"model": "demo", "messages": SAID, "max_tokens": 2})
    assert {path.name for path in folder.iterdir()} == {"models.yaml", "secret.txt", "allowed"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_file_that_may_not_be_read_is_told_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 16)
    (tmp_path / "key").chmod(0)
    with serving(tmp_path, "chat: {m: {backend: echo}}") as server:
        save(tmp_path / "models.yaml", "server: {api_keys: {x: {file: key}}}\nchat: {m: {backend: echo}}")
        server.wait_for("the file cannot be read: Permission denied")


@pytest.mark.parametrize(
    "text",
    [
        "chat: !!python/object/apply:os.system ['touch owned']",
        "chat: {m: {backend: !!python/name:os.system echo}}",
        "chat: {m: {backend: echo}}\nserver: {drain_seconds: " + "9" * 100_000 + "}",
        "chat: " + "{a: " * 10_000,
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "\n".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "chat: {m: {backend: echo}}\n" + "# " + "x" * 20_000_000,
    ],
    ids=["call", "name", "number", "depth", "aliases", "size"],
)
def test_a_manifest_made_to_harm_is_refused_and_the_server_serves_on(tmp_path: Path, text: str) -> None:
    with serving(tmp_path, "chat: {m: {backend: echo}}") as server:
        memory = psutil.Process(server.process.pid).memory_info().rss
        (tmp_path / "models.yaml").write_text(text)
        assert server.reload()["ok"] is False
        assert server.request("POST", CHAT, {"model": "m", "messages": SAID}).status == 200
        assert psutil.Process(server.process.pid).memory_info().rss - memory < 100e6
        assert not (tmp_path / "owned").exists()
