"""Any engine tells its load, queue, memory and health in /status, its events and /metrics: no other file knows it."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as prometheus

from tests.own_engines import MEMORY_BYTES, OtherServer, other_server, program
from tests.server import Server, serving, until

CHAT = "/v1/chat/completions"


@pytest.fixture
def other() -> Iterator[OtherServer]:
    with other_server() as other:
        yield other


@pytest.fixture
def server(tmp_path: Path, other: OtherServer) -> Iterator[Server]:
    manifest = {"chat": {"inside": {"backend": "inside"}, "remote": {"backend": "remote", "url": other.url}}}
    with serving(tmp_path, json.dumps(manifest), program=program(tmp_path)) as server:
        yield server


def ask(server: Server, model: str, text: str = "Hi") -> Any:
    return server.request("POST", CHAT, {"model": model, "messages": [{"role": "user", "content": text}]}).json()


def metric(server: Server, name: str, model: str) -> float | None:
    text = server.request("GET", "/metrics").body.decode()
    samples = [sample for family in prometheus(text) for sample in family.samples]
    return next((each.value for each in samples if (each.name, each.labels.get("model")) == (name, model)), None)


def first_event(server: Server) -> Any:
    """Return the first event that the console gets."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", "/status/events")
        reply = connection.getresponse()
        while not (line := reply.readline()).startswith(b"data: "):
            pass
        return json.loads(line.removeprefix(b"data: "))


def test_an_engine_inside_the_server_tells_its_load_its_queue_and_its_memory(server: Server) -> None:
    answers: list[Any] = []
    asking = [threading.Thread(target=lambda: answers.append(ask(server, "inside"))) for _ in range(3)]
    for thread in asking:
        thread.start()
    until(lambda: (server.model("inside")["requests"] or {}).get("waiting") == 1)
    until(lambda: server.model("inside")["requests"]["running"] == 2)
    told = server.model("inside")
    measured = {
        name: metric(server, f"localapi_{name}", "inside")
        for name in ("requests_running", "requests_waiting", "worker_memory_bytes", "model_healthy")
    }
    shown = next(model for model in first_event(server)["models"] if model["id"] == "inside")
    until(lambda: server.status()["memory"]["used_bytes"] == MEMORY_BYTES)
    ask(server, "inside", "go")
    for thread in asking:
        thread.join()

    assert (told["waiting"], told["leases"], told["healthy"]) == (1, 3, True)
    assert (told["memory_bytes"], told["tokens_per_second"], told["place"]["pid"]) == (MEMORY_BYTES, 7.5, None)
    assert measured == {
        "requests_running": 2, "requests_waiting": 1, "worker_memory_bytes": MEMORY_BYTES, "model_healthy": 1,
    }  # fmt: skip
    assert {**shown, "last_error": None} == told
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == ["Yes"] * 3
    assert server.model("inside")["requests"]["running"] == 0


def test_an_engine_on_another_server_tells_its_load_and_that_its_memory_is_unknown(
    server: Server, other: OtherServer
) -> None:
    other.vitals = {"running": 5, "unanswered": 3, "queued": 2, "max_batch": 5}
    assert ask(server, "remote")["choices"][0]["message"]["content"] == "From afar."
    until(lambda: server.model("remote")["requests"]["running"])
    told = server.model("remote")
    assert (told["requests"]["running"], told["requests"]["waiting"], told["memory_bytes"]) == (5, 3, None)
    assert metric(server, "localapi_model_healthy", "remote") == 1
    assert metric(server, "localapi_worker_memory_bytes", "remote") is None
    assert server.status()["memory"]["used_bytes"] == 0


def test_an_engine_that_cannot_answer_is_told_with_the_reason_until_it_can(server: Server, other: OtherServer) -> None:
    ask(server, "remote")
    other.vitals = {"healthy": False, "reason": "out of disk"}
    until(lambda: server.model("remote")["healthy"] is False)
    assert server.model("remote")["unhealthy_reason"] == "out of disk"
    assert metric(server, "localapi_model_healthy", "remote") == 0
    other.vitals = {}
    until(lambda: server.model("remote")["healthy"])
    assert server.model("remote")["unhealthy_reason"] is None


def test_a_preloaded_model_whose_server_has_gone_is_not_ready(tmp_path: Path) -> None:
    with other_server() as other:
        manifest = {"chat": {"remote": {"backend": "remote", "url": other.url, "preload": True}}}
        with serving(tmp_path, json.dumps(manifest), program=program(tmp_path)) as server:
            until(lambda: server.request("GET", "/health/ready").status == 200)
            other.close()
            until(lambda: server.request("GET", "/health/ready").status == 503)
            refused = server.request("GET", "/health/ready").json()
            assert "cannot be reached" in refused["errors"]["remote"]
            assert server.model("remote")["state"] == "ready"
