"""Programs as models of a running server: swaps, failures and ends, and that none of them outlives it."""

from __future__ import annotations

import json
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.marked import VARIABLE, marked
from tests.server import Server, save, serving, stream_text, until

PROGRAM = Path(__file__).parents[1] / "hostile_program.py"
CHAT = "/v1/chat/completions"


@pytest.fixture
def mark() -> Iterator[str]:
    """In the environment of every program of a test; nothing with it may be left."""
    mark = secrets.token_hex(8)
    yield mark
    assert marked(mark) == []


def program(mark: str, *ways: str, **options: Any) -> dict[str, Any]:
    """An entry whose program is hostile in these ways."""
    command = [sys.executable, str(PROGRAM), "{port}", *ways]
    return {"backend": "command", "command": command, "env": {VARIABLE: mark}, "stop_timeout": "0.5s", **options}


def body(text: str, model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def said(server: Server, text: str, model: str) -> str:
    reply = server.request("POST", CHAT, body(text, model)).json()
    return str(reply["choices"][0]["message"]["content"])


def change(server: Server, **entries: Any) -> None:
    """Save a manifest, in JSON, which is YAML."""
    save(server.folder / "models.yaml", json.dumps({"chat": entries}))
    server.reload()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose manifest each test writes."""
    with serving(tmp_path_factory.mktemp("programs"), "chat: {}") as server:
        yield server


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest, mark: str) -> Iterator[None]:
    """After each test, the server that tests share has no models."""
    yield
    if "server" in request.fixturenames:
        change(request.getfixturevalue("server"))
        until(lambda: marked(mark) == [])


def test_another_localapi_and_mlx_lm_server_are_programs_like_any_other(tmp_path: Path, mark: str) -> None:
    (tmp_path / "inner.yaml").write_text("chat: {parrot: {backend: echo}}\nspeech: {beep: {backend: echo}}")
    inner = [sys.executable, "-m", "localapi", "--port", "{port}", "--manifest", "inner.yaml"]
    mlx = [sys.executable, "-m", "mlx_lm", "server", "--port", "{port}", "--model", "{path}"]
    model = Path(__file__).parents[2] / "localapi" / "demo" / "model"
    env = {VARIABLE: mark}
    entries = {
        "inner": {"backend": "command", "command": inner, "env": env, "model": "parrot"},
        "mlx": {
            "backend": "command",
            "command": mlx,
            "path": str(model),
            "env": {**env, "HF_HUB_CACHE": str(tmp_path)},
        },
    }
    speech = {
        "voice": {"backend": "espeak-ng", "env": env},
        "beeps": {"backend": "command", "command": inner, "env": env, "model": "beep"},
    }
    with serving(tmp_path, json.dumps({"chat": entries, "speech": speech})) as server:
        with server.client() as client:
            stream = client.chat.completions.create(**body("one two", "inner", stream=True))  # type: ignore[call-overload]
            assert stream_text(stream) == "one two"
            answer = client.chat.completions.create(**body("What is the capital of France?", "mlx", temperature=0))  # type: ignore[call-overload]
            assert "Paris" in answer.choices[0].message.content
            assert answer.usage.completion_tokens > 0
            sound = client.audio.speech.create(model="beeps", voice="any", input="Hello", response_format="wav")
            assert sound.content[:4] == b"RIFF"
        for name in ("inner", "mlx", "beeps"):
            program = server.model(name)
            assert (program["state"], program["healthy"]) == ("ready", True)
            assert psutil.Process(program["place"]["pid"]) in marked(mark)
            assert program["memory_bytes"] > psutil.Process(program["place"]["pid"]).memory_info().rss / 2
            assert server.request("POST", f"/admin/models/{name}/unload").json()["state"] == "unloaded"
        assert marked(mark) == []
        worker = server.request("POST", "/admin/models/voice/load").json()["place"]["pid"]
        assert psutil.Process(worker) in marked(mark)


@pytest.mark.parametrize("swap", ["warm", "cold"])
def test_a_changed_command_replaces_a_program_that_ignores_everything(server: Server, mark: str, swap: str) -> None:
    ways = ("fork", "ignore-term")
    change(server, program=program(mark, *ways, swap=swap))
    assert said(server, "hello", "program") == "hello"
    before = server.model("program")["place"]["pid"]
    change(server, program=program(mark, *ways, "other", swap=swap))
    until(lambda: server.model("program")["place"]["pid"] not in (before, None))
    assert said(server, "hello", "program") == "hello"
    until(lambda: len(marked(mark)) == 3)
    until(lambda: not psutil.pid_exists(before))


def test_a_program_that_does_not_get_ready_does_not_replace_one_that_is(server: Server, mark: str) -> None:
    change(server, program=program(mark))
    assert said(server, "hello", "program") == "hello"
    before, lines = server.model("program")["place"]["pid"], len(server.lines)
    change(server, program=program(mark, "never-ready", start_timeout="1s"))
    server.wait_for("was not ready at", after=lines)
    assert said(server, "hello", "program") == "hello"
    assert server.model("program")["place"]["pid"] == before


def test_a_program_that_dies_is_started_again_by_the_next_request(server: Server, mark: str) -> None:
    change(server, program=program(mark))
    with server.client() as client, pytest.raises(openai.APIError, match="exit status 7"):
        stream_text(client.chat.completions.create(**body("die", "program", stream=True)))  # type: ignore[call-overload]
    until(lambda: server.model("program")["state"] != "ready")
    assert "exit status 7" in server.model("program")["last_error"]
    assert said(server, "hello", "program") == "hello"
    assert server.model("program")["restarts"] == 1


def test_a_program_that_does_not_answer_is_ended_by_the_watchdog(server: Server, mark: str) -> None:
    change(server, program=program(mark, stall_seconds=1))
    reply = server.request("POST", CHAT, body("hang", "program"))
    assert reply.status == 503
    assert "hung" in reply.json()["error"]["message"]


def test_a_program_that_cannot_start_is_failed_after_a_pause_and_costs_nothing(server: Server, mark: str) -> None:
    change(server, program=program(mark, "loud-exit"))
    replies = [server.request("POST", CHAT, body("hello", "program")) for _ in range(4)]
    assert [reply.status for reply in replies] == [503] * 4
    assert "out of memory: buy more" in replies[0].json()["error"]["message"]
    assert "will not be loaded for" in replies[3].json()["error"]["message"]
    assert server.model("program")["state"] == "failed"
    assert marked(mark) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_program_outlives_the_server_whether_it_is_ready_or_not(
    tmp_path: Path, mark: str, number: signal.Signals
) -> None:
    save(tmp_path / "models.yaml", "chat: {}")
    server = Server(tmp_path)
    ready = program(mark, "fork", "ignore-term", preload=True)
    loading = program(mark, "fork", "ignore-term", "silent", preload=True)
    change(server, ready=ready, loading=loading)
    until(lambda: server.model("ready")["state"] == "ready" and len(marked(mark)) == 6)
    processes = marked(mark)
    server.stop(number)
    assert psutil.wait_procs(processes, timeout=60)[1] == []
