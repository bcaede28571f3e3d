"""Workers that die, hang and do not load: what their requests are told, and how the model comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from localapi.runtime.backoff import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, TOLERATED, Backoff
from tests.piper_voice import make_voice
from tests.server import Reply, Server, save, serving, until

CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/speech"


def ask(model: str, **options: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Count to five."}], "temperature": 0, **options}


@contextlib.contextmanager
def asking(server: Server, path: str, body: dict[str, Any]) -> Iterator[list[Reply]]:
    """A request on its way; its reply is in the list at the end."""
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(server.request("POST", path, body)))
    thread.start()
    yield replies
    thread.join()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing, as one that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def loaded(server: Server, model: str) -> int:
    pid = server.request("POST", f"/admin/models/{model}/load").json()["place"]["pid"]
    assert isinstance(pid, int)
    return pid


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_has_got_nothing_yet_begins_again_on_a_new_worker(tmp_path: Path, stream: bool) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo}}") as server:
        pid = loaded(server, "demo")
        with stopped(pid), asking(server, CHAT, ask("demo", stream=stream)) as replies:
            until(lambda: server.model("demo")["requests"]["waiting"])
            os.kill(pid, signal.SIGKILL)
        assert replies[0].status == 200
        assert b"error" not in replies[0].body
        status = server.model("demo")
        assert (status["worker_deaths"], status["restarts"], status["failures_in_a_row"]) == (1, 1, 0)
        assert status["last_step_age_seconds"] >= 0


def test_speech_begins_again_on_a_new_worker_too(tmp_path: Path) -> None:
    make_voice(tmp_path / "tiny.onnx")
    with serving(tmp_path, "speech: {tiny: {backend: piper, path: ./tiny.onnx}}") as server:
        body = {"model": "tiny", "input": "Hello there.", "response_format": "wav"}
        before = server.request("POST", SPEECH, body)
        pid = server.model("tiny")["place"]["pid"]
        with stopped(pid), asking(server, SPEECH, body) as replies:
            until(lambda: server.model("tiny")["requests"]["waiting"])
            os.kill(pid, signal.SIGKILL)
        assert replies[0].status == 200
        assert len(replies[0].body) == pytest.approx(len(before.body), rel=0.5)


def test_a_second_death_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo}}") as server:
        first = loaded(server, "demo")
        with stopped(first), asking(server, CHAT, ask("demo")) as replies:
            until(lambda: server.model("demo")["requests"]["waiting"])
            os.kill(first, signal.SIGKILL)
            until(lambda: (server.model("demo")["progress"] or {}).get("phase") == "importing mlx-lm")
            (second,) = server.workers()
            second.kill()
        error = replies[0].json()["error"]
        assert (replies[0].status, error["code"]) == (503, "model_unavailable")
        assert "was killed by SIGKILL while it loaded" in error["message"]
        assert server.request("POST", CHAT, ask("demo")).status == 200


def test_an_answer_that_has_begun_ends_with_an_error(tmp_path: Path, endless_model: Path) -> None:
    with serving(tmp_path, f"chat: {{endless: {{backend: mlx-lm, path: {endless_model}}}}}") as server:
        pid = loaded(server, "endless")
        with asking(server, CHAT, ask("endless", stream=True)) as replies:
            until(lambda: server.model("endless")["requests"]["running"])
            os.kill(pid, signal.SIGKILL)
        *_, last = replies[0].body.strip().split(b"\n\n")
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert error["code"] == "model_unavailable"
        assert "killed by SIGKILL before the response was complete" in error["message"]


def test_a_worker_that_hangs_is_ended_while_another_model_answers(tmp_path: Path) -> None:
    manifest = """
chat:
  hung: {backend: mlx-lm, path: demo, stall_seconds: 2}
  fine: {backend: mlx-lm, path: demo, stall_seconds: 2}
"""
    with serving(tmp_path, manifest) as server:
        pid = loaded(server, "hung")
        with stopped(pid), asking(server, CHAT, ask("hung")) as replies:
            assert server.request("POST", CHAT, ask("fine")).status == 200
        assert replies[0].status == 200
        server.wait_for(r"hung: worker \d+ hung: it did nothing for \d+ s \(stall_seconds\) and was ended")
        assert not psutil.pid_exists(pid)
        assert server.model("hung")["restarts"] == 1
        assert server.model("fine")["worker_deaths"] == 0


def test_a_worker_that_hangs_is_ended_though_every_client_leaves_before_that_shows(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {hung: {backend: mlx-lm, path: demo, stall_seconds: 2}}") as server:
        pid = loaded(server, "hung")
        with stopped(pid), server.client(timeout=0.4) as client:
            while server.model("hung")["worker_deaths"] == 0:
                with contextlib.suppress(openai.APITimeoutError):
                    client.chat.completions.create(**ask("hung"))
        server.wait_for(r"hung: worker \d+ hung: it did nothing for \d+ s")
        assert server.request("POST", CHAT, ask("hung")).status == 200


def test_a_stopped_worker_without_work_is_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo, stall_seconds: 1}}") as server:
        pid = loaded(server, "demo")
        with stopped(pid):
            time.sleep(4)  # nothing is to happen
            assert server.model("demo")["place"]["pid"] == pid


def test_a_worker_that_hangs_while_it_loads_is_ended(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo, stall_seconds: 2}}") as server:
        with asking(server, CHAT, ask("demo")) as replies:
            until(lambda: (server.model("demo")["progress"] or {}).get("phase") == "importing mlx-lm")
            (worker,) = server.workers()
            worker.suspend()
        assert replies[0].status == 503
        assert "did nothing for" in replies[0].json()["error"]["message"]
        assert server.request("POST", CHAT, ask("demo")).status == 200


def test_a_model_that_fails_again_and_again_is_left_alone_until_somebody_mends_it(tmp_path: Path) -> None:
    shutil.copytree(Path("localapi/demo/model").absolute(), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"no weights")
    entry = "backend: mlx-lm, path: ./model"
    with serving(tmp_path, f"chat: {{broken: {{{entry}, preload: true}}, fine: {{backend: echo}}}}") as server:
        until(lambda: server.model("broken")["state"] == "failed")
        ready = server.request("GET", "/health/ready")
        assert (ready.status, ready.json()["models"]) == (503, ["broken"])
        for _ in range(TOLERATED - 1):
            refused = server.request("POST", CHAT, ask("broken"))
            assert (refused.status, refused.headers.get("retry-after")) == (503, None)
        paused = server.request("POST", CHAT, ask("broken"))
        assert paused.status == 503
        assert 0 < int(paused.headers["retry-after"]) <= FIRST_PAUSE_SECONDS
        assert "failed 3 times in a row" in paused.json()["error"]["message"]
        assert "model.safetensors" in paused.json()["error"]["message"]
        assert server.model("broken")["cooling_down_until"] > time.time() - 1
        assert server.request("POST", CHAT, ask("fine")).status == 200
        weights.write_bytes(whole)
        save(tmp_path / "models.yaml", f"chat: {{broken: {{{entry}, aliases: [mended]}}}}")
        server.reload()
        assert server.request("POST", CHAT, ask("broken")).status == 200


def test_loading_by_hand_ends_a_pause(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo}}") as server:
        for deaths in range(1, TOLERATED + 1):
            os.kill(loaded(server, "demo"), signal.SIGKILL)
            until(lambda deaths=deaths: server.model("demo")["worker_deaths"] == deaths)
        assert server.request("POST", CHAT, ask("demo")).status in {200, 503}
        assert server.request("POST", "/admin/models/demo/load").status == 200
        assert server.request("POST", CHAT, ask("demo")).status == 200


def test_a_worker_that_died_needs_nobody_as_long_as_there_is_no_pause(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo, preload: true}}") as server:
        os.kill(loaded(server, "demo"), signal.SIGKILL)
        until(lambda: server.model("demo")["worker_deaths"])
        died = server.model("demo")
        assert (died["state"], died["last_error"]) == ("unloaded", "its worker was killed by SIGKILL")
        assert server.request("GET", "/health/ready").status == 200  # the next request loads it


def test_a_pinned_model_comes_back_by_itself(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo, pin: true}}") as server:
        until(lambda: server.model("demo")["state"] == "ready")
        os.kill(server.model("demo")["place"]["pid"], signal.SIGKILL)
        until(lambda: server.model("demo")["restarts"] == 1)
        assert server.request("GET", "/health/ready").status == 200


def test_pauses_grow_to_a_limit_and_a_success_ends_them() -> None:
    backoff = Backoff()
    pauses = []
    for _ in range(TOLERATED + 10):
        backoff.failed()
        pauses.append(round(backoff.seconds_left))
    assert pauses[: TOLERATED + 2] == [0, 0, 5, 10, 20]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    backoff.reset()
    assert (backoff.seconds_left, backoff.paused_until) == (0, None)
