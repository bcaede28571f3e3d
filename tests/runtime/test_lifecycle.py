"""Loading and ending of models, on real workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.server import Server, save, serving

CHAT = "/v1/chat/completions"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    manifest = """
server: {drain_seconds: 60, keep_alive: 0}
chat:
  pinned: {backend: mlx-lm, path: demo, pin: true, aliases: [kept]}
  fleeting: {backend: mlx-lm, path: demo}
"""
    with serving(tmp_path, manifest) as server:
        yield server


def body(model: str, **options: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Count to five."}], **options}


def until(server: Server, model: str, state: str) -> None:
    """The test's time limit is the bound."""
    while server.model(model)["state"] != state:
        time.sleep(0.02)


def test_a_pinned_model_loads_by_itself_and_stays_where_another_is_unloaded(server: Server) -> None:
    until(server, "pinned", "ready")
    pid = server.model("pinned")["place"]["pid"]
    for name in ("pinned", "fleeting"):
        assert server.request("POST", CHAT, body(name)).status == 200
    until(server, "fleeting", "unloaded")
    assert (server.model("pinned")["place"]["pid"], server.model("pinned")["pinned"]) == (pid, True)


def test_a_pin_that_an_edit_takes_away_lets_the_model_go(server: Server, tmp_path: Path) -> None:
    until(server, "pinned", "ready")
    save(tmp_path / "models.yaml", "chat: {pinned: {backend: mlx-lm, path: demo, keep_alive: 0}}")
    assert server.reload()["changes"]["updated"] == ["pinned"]
    until(server, "pinned", "unloaded")


def test_loading_and_unloading_by_hand_start_and_end_a_process(server: Server) -> None:
    loaded = server.request("POST", "/admin/models/kept/load").json()
    assert (loaded["id"], loaded["state"]) == ("pinned", "ready")
    unloaded = server.request("POST", "/admin/models/pinned/unload").json()
    assert (unloaded["state"], unloaded["place"]["pid"]) == ("unloaded", None)
    assert not psutil.pid_exists(loaded["place"]["pid"])
    assert server.request("POST", CHAT, body("pinned")).status == 200


def test_unloading_waits_for_what_runs_and_then_gives_up(tmp_path: Path, endless_model: Path) -> None:
    manifest = f"server: {{drain_seconds: 0.5}}\nchat: {{endless: {{backend: mlx-lm, path: {endless_model}}}}}"
    with serving(tmp_path, manifest) as server:
        with server.client() as client:
            stream = client.chat.completions.create(**body("endless", stream=True, temperature=0))  # type: ignore[call-overload]
            next(iter(stream))
            reply = server.request("POST", "/admin/models/endless/unload")
            assert (reply.status, reply.json()["error"]["code"]) == (409, "model_in_use")
            assert "Running requests of endless (1) did not end" in reply.json()["error"]["message"]
            stream.close()
        assert server.request("POST", "/admin/models/endless/unload").status == 200


@pytest.mark.parametrize("what", ["load", "unload"])
def test_a_model_that_does_not_exist_is_not_found(server: Server, what: str) -> None:
    reply = server.request("POST", f"/admin/models/nothing/{what}")
    assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped process ends when somebody wakes it")
def test_not_even_a_stopped_worker_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "chat: {demo: {backend: mlx-lm, path: demo}}")
    server = Server(tmp_path)
    pid = server.request("POST", "/admin/models/demo/load").json()["place"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL


def test_a_shutdown_ends_a_stopped_worker_too(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {demo: {backend: mlx-lm, path: demo}}") as server:
        pid = server.request("POST", "/admin/models/demo/load").json()["place"]["pid"]
        os.kill(pid, signal.SIGSTOP)
