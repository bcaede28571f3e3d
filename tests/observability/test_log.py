"""The log: lines for programs, ids that lead from a reply to its lines, and nothing of what people say."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from localapi.observability import log as logs
from tests.server import Server, save, serving, until

MANIFEST = """
server: {log_level: debug}
chat: {bird: {backend: echo}, demo: {backend: mlx-lm, path: demo}}
speech: {tone: {backend: echo, speakable: true}}
"""
CHAT = "/v1/chat/completions"
SECRET = "Xylophon-Quittung"


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def objects(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.lines]


def test_each_line_is_an_object_that_says_when_who_and_what(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 16)
    manifest = MANIFEST.replace("log_level: debug", "log_level: debug, api_keys: {laptop: {file: key}}")
    with serving(tmp_path, manifest, "--log", "json") as server:
        headers = {"x-api-key": "k" * 16, "x-request-id": "mine"}
        reply = server.request("POST", CHAT, {"model": "demo", "messages": said("hi"), "max_tokens": 2}, headers)
        server.request("POST", CHAT, {"model": "nope", "messages": said("hi")}, headers)
        server.wait_for(r"POST /v1/chat/completions: 404")
        save(tmp_path / "models.yaml", "chat: [\n")
        server.wait_for("manifest rejected")
    lines = objects(server)

    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert all(datetime.fromisoformat(line["time"]).utcoffset() is not None for line in lines)
    assert lines[0]["message"].startswith("localapi ")
    request_id = reply.headers["x-request-id"]
    assert request_id != "mine"
    assert reply.status == 200
    of_request = [line for line in lines if line.get("request_id") == request_id]
    done = of_request[-1]
    assert (done["model"], done["key"], done["level"]) == ("demo", "laptop", "info")
    assert any("in the worker" in line["message"] for line in of_request)
    loading = next(line for line in lines if line["message"] == "demo: loading")
    assert loading["model"] == "demo"
    assert "request_id" not in loading  # others may wait for the same load
    refused = next(line for line in lines if "completions: 404" in line["message"])  # ids and ports may hold 404, too
    assert refused["key"] == "laptop"
    assert "model" not in refused
    assert {line["level"] for line in lines if "manifest rejected" in line["message"]} == {"error"}
    assert "k" * 16 not in "".join(server.lines)


def test_a_refused_request_is_logged_with_its_reason_and_without_its_value(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {m: {backend: echo}}") as server:
        server.request("POST", CHAT, {"model": "m", "messages": said("hi"), "temperature": 7.25})
        line = server.wait_for(r"POST /v1/chat/completions: 400: .*")[0]
        server.request("POST", CHAT, {"model": "m"})
        server.wait_for(r"400: Missing required parameter: 'messages'")
    assert "'temperature'" in line
    assert "less than or equal to 2" in line
    assert "7.25" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_people_say_is_never_logged(tmp_path: Path, form: str) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": SECRET, "parameters": {"const": SECRET}}}
    with serving(tmp_path, MANIFEST, "--log", form) as server:
        for model in ("bird", "demo"):
            for body in (
                {"messages": said(SECRET)},
                {"messages": said(SECRET), "stream": True},
                {"messages": said(SECRET), "tools": [tool]},
                {"messages": SECRET},
                {"messages": [{"role": SECRET, "content": SECRET}]},
                {"messages": [{"role": "user", "content": [{"type": SECRET, "text": SECRET}]}]},
                {"messages": said(SECRET), "stop": [SECRET], "user": SECRET, "unknown": SECRET},
                {"messages": said(SECRET), "temperature": SECRET},
                {"messages": said(SECRET), "regex": f"{SECRET}("},
                {"messages": said(SECRET * 1000), "stream": True},
            ):
                server.request("POST", CHAT, {"model": model, "max_tokens": 8, **body})
            server.request("POST", "/v1/completions", {"model": model, "prompt": SECRET, "max_tokens": 2})
            server.request("POST", "/v1/tokenize", {"model": model, "text": SECRET})
        for body in (
            {"input": SECRET},
            {"input": SECRET * 1000},
            {"input": [SECRET]},
            {"input": "x", "ref_text": SECRET},
        ):
            server.request("POST", "/v1/audio/speech", {"model": "tone", **body})
        server.request("POST", CHAT, f'{{"messages": "{SECRET}'.encode())
        lines = list(server.lines)
    assert len(lines) > 20
    assert [line for line in lines if SECRET in line] == []


def record(name: str, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "", 0, message, values, None)


def test_a_line_of_a_worker_names_its_model_and_cannot_break_out() -> None:
    line = logs.JsonLine().format(record("localapi.backends.worker_engine", "%s: %s", "demo", 'a\nb"}\x1b\u2028'))
    assert "\n" not in line
    assert json.loads(line)["model"] == "demo"
    assert json.loads(line)["message"] == 'demo: a\nb"}\x1b\u2028'


def test_a_line_of_a_task_that_a_request_began_is_not_the_requests() -> None:
    token = logs.about.set({"request_id": "req_1", "key": "laptop"})
    try:
        assert logs.request_of(record("localapi.api.openai.chat", "x")) == {"request_id": "req_1", "key": "laptop"}
        assert logs.request_of(record("localapi.runtime.registry", "x")) == {}
    finally:
        logs.about.reset(token)


def test_an_exception_is_told_on_its_line() -> None:
    try:
        int("broken")
    except ValueError:
        failed = logging.LogRecord("localapi.app", logging.ERROR, "", 0, "x", (), sys.exc_info())
    assert json.loads(logs.JsonLine().format(failed))["exception"].endswith("'broken'")


# A log that nobody reads


def reply(port: int, method: str, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path)
        return connection.getresponse().status


def is_there(port: int) -> bool:
    with contextlib.suppress(ConnectionError):
        return reply(port, "GET", "/health") == 200
    return False


def test_a_log_that_nobody_reads_keeps_up_neither_requests_nor_a_shutdown(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    wrong = "".join(f"  {'x' * 60}{number}: {{backend: eko}}\n" for number in range(900))
    save(tmp_path / "models.yaml", "chat: {bird: {backend: echo}}\n")
    server = subprocess.Popen(
        [sys.executable, "-m", "localapi", "serve", "--port", str(port)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
    )
    with server:
        try:
            until(lambda: is_there(port))
            save(tmp_path / "models.yaml", f"chat:\n{wrong}")  # each a line of the log: more than a pipe holds
            assert reply(port, "POST", "/admin/reload") == 422
            assert reply(port, "GET", "/health") == 200
            server.terminate()
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_lines_for_which_there_is_no_place_are_counted() -> None:
    reading, writing = os.pipe()
    log = logs.Written(writing, "utf-8")
    count = logs.MOST_LINES + 2000
    for number in range(count):
        log.emit(record("localapi.test", "%s", f"line {number} {'x' * 200}"))
    with open(reading, encoding="utf-8") as stream:
        found = [stream.readline() for _ in range(logs.MOST_LINES)]
        log.emit(record("localapi.test", "%s", "the last"))
        while "the last\n" not in found:
            found.append(stream.readline())
    os.close(writing)
    kept = [int(line.split()[1]) for line in found if line.startswith("line ")]
    lost = [int(line.split()[0]) for line in found if "were dropped" in line]
    assert kept == sorted(kept)
    assert lost
    assert len(kept) + sum(lost) == count
