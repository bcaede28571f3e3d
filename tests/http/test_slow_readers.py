"""Clients that do not read, on sockets that hold little: they keep no model, nobody waiting, and little memory."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server import NO_WORK, Server, serving

CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/speech"
WORDS = "".join(f"word{number} " for number in range(60_000))
LONG = "This sentence goes on for about as long as somebody speaks. " * 2000
"""Two hours of speech."""


@contextlib.contextmanager
def slow(server: Server, path: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    """A reply of which only the beginning is read; the rest is read where the test does it."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(120)
        connection.connect(("127.0.0.1", server.port))
        sent = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
        with http.client.HTTPResponse(connection, method="POST") as reply:
            reply.begin()
            assert reply.status == 200
            assert reply.read(100)
            yield reply


def until(server: Server, name: str, **expected: object) -> None:
    """The test's time limit is the bound."""
    while {key: server.model(name)[key] for key in expected} != expected:
        time.sleep(0.02)


def content(stream: bytes) -> str:
    """The text of all whole events."""
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n\n") if line.startswith(b"data: {")]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_a_client_that_does_not_read_gives_its_place_to_the_next_one_and_loses_nothing(tmp_path: Path) -> None:
    said = [{"role": "user", "content": WORDS}]
    with serving(tmp_path, "chat: {m: {backend: echo, max_concurrent: 1, max_waiting: 1}}") as server:
        with slow(server, CHAT, {"model": "m", "messages": said, "stream": True}) as reply:
            until(server, "m", leases=0)
            after = server.request("POST", CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
            assert after.status == 200
            stream = reply.read()
        assert stream.endswith(b"data: [DONE]\n\n")
        assert content(stream).endswith(WORDS[-1000:])


def test_a_model_that_has_answered_may_be_unloaded_while_its_answer_is_still_read(
    tmp_path: Path, endless_model: Path
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 600}
    more = {"stream": True, "logprobs": True, "top_logprobs": 20, "stream_options": {"include_usage": True}}
    with serving(tmp_path, f"chat: {{m: {{backend: mlx-lm, path: {endless_model}}}}}") as server:
        with slow(server, CHAT, {**body, **more}) as reply:
            until(server, "m", leases=0)
            assert server.request("POST", "/admin/models/m/unload").status == 200
            until(server, "m", state="unloaded")
            stream = reply.read()
        assert stream.endswith(b"data: [DONE]\n\n")
        assert b'"completion_tokens":600' in stream
        assert stream.count(b'"bytes":') > 600


@pytest.mark.parametrize("backend", ["echo", "espeak-ng"])
def test_endless_speech_for_a_client_that_does_not_read_takes_no_memory_and_keeps_nobody_waiting(
    tmp_path: Path, backend: str
) -> None:
    with serving(tmp_path, f"speech: {{m: {{backend: {backend}, max_input_characters: 1000000}}}}") as server:
        process = psutil.Process(server.process.pid)
        assert server.request("POST", SPEECH, {"model": "m", "input": "hello"}).status == 200
        before = process.memory_info().rss
        with slow(server, SPEECH, {"model": "m", "input": LONG, "response_format": "wav"}):
            for _ in range(20):
                after = server.request("POST", SPEECH, {"model": "m", "input": "hello"})
                assert after.status == 200
            until(server, "m", leases=1)
            if backend != "echo":  # a part is made, and the next is not asked for
                work = NO_WORK
                until(server, "m", requests=work)
            assert process.memory_info().rss - before < 100e6
        until(server, "m", leases=0)


def test_long_speech_is_the_same_in_parts_as_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "speech: {m: {backend: echo, max_input_characters: 1000000}}") as server:
        body = {"model": "m", "input": LONG[:9000], "response_format": "pcm", "timestamps": "sentence"}
        said = server.request("POST", SPEECH, body).json()
        starts = [segment["start"] for segment in said["timestamps"]]
        assert len(starts) == 150
        assert starts == sorted(starts)
        assert said["duration_seconds"] == pytest.approx(600, rel=0.05)


def test_a_shutdown_waits_for_a_client_that_still_reads(tmp_path: Path) -> None:
    said = [{"role": "user", "content": WORDS}]
    with serving(tmp_path, "chat: {m: {backend: echo}}") as server:
        with slow(server, CHAT, {"model": "m", "messages": said, "stream": True}) as reply:
            until(server, "m", leases=0)
            server.process.terminate()
            server.wait_for("waiting for 1 running request")
            assert reply.read().endswith(b"data: [DONE]\n\n")
        server.signalled = True
