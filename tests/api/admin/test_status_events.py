"""`GET /status/events` on a real server: all of it first, then what changes, to any number of listeners."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import fields, replace

from localapi.api.admin.model_status import ModelReply, PlaceReply
from localapi.api.admin.status import StatusReply
from localapi.api.admin.status_events import Live, difference
from localapi.app import Service
from localapi.manifest import ManifestSource
from localapi.observability.log_buffer import History
from localapi.settings import Settings
from tests.server import Server, save, serving

MANIFEST = "chat: {bird: {backend: echo}, demo: {backend: mlx-lm, path: demo}}"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
Told = tuple[str, dict[str, Any]]


@contextlib.contextmanager
def listening(server: Server, *, log: bool = False) -> Iterator[Iterator[Told]]:
    """Return the events of the status; with `log`, those of the log."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/status/events")
    reply = connection.getresponse()
    assert reply.headers["content-type"].startswith("text/event-stream")

    def events() -> Iterator[Told]:
        name = ""
        for raw in reply:
            kind, _, value = raw.decode().rstrip("\n").partition(": ")
            if kind == "event":
                name = value
            elif kind == "data" and (name == "log") == log:
                yield name, json.loads(value)

    try:
        yield events()
    finally:
        reply.close()
        connection.close()


def until_model(events: Iterator[Told], name: str, state: str) -> dict[str, Any]:
    for _, told in events:
        for model in told["models"]:
            if (model["id"], model["state"]) == (name, state):
                return dict(model)
    raise AssertionError("the stream ended")


def test_all_of_it_comes_first_and_then_each_change(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server, listening(server) as events:
        kind, status = next(events)
        assert kind == "status"
        assert status.keys() == server.status().keys()

        server.request("POST", "/v1/chat/completions", {"model": "demo", **ASK})
        assert until_model(events, "demo", "ready")["loads"] == 1

        save(tmp_path / "models.yaml", "chat: {bird: {}}")
        told = next(told for _, told in events if (told.get("last_attempt") or {}).get("ok") is False)
        assert "bird" not in {model["id"] for model in told["models"]}  # only what changed
        assert "missing" in told["last_attempt"]["problems"][0]["message"]

        save(tmp_path / "models.yaml", "chat: {bird: {backend: echo}, other: {backend: echo}}")
        status = next(told for kind, told in events if kind == "status")
        assert [model["id"] for model in status["models"]] == ["bird", "other"]


def test_the_log_comes_too_first_all_that_is_kept_and_then_what_is_new(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        server.request("POST", "/admin/models/bird/load")
        with listening(server, log=True) as events:
            _, told = next(events)
            assert told["all"] is True
            loaded = told["records"][-1]
            assert (loaded["model"], loaded["level"]) == ("bird", "info")
            assert "bird: loaded" in loaded["message"]
            assert {"number", "time", "logger"} < loaded.keys()

            server.request("POST", "/v1/chat/completions", {"model": "bird", **ASK, "temperature": "hot " * 3})
            _, told = next(events)
            assert told["all"] is False
            record = told["records"][-1]
            assert "400: Invalid 'temperature': " in record["message"]
            assert record["request_id"].startswith("req_")
            assert record["number"] > loaded["number"]


def test_the_stream_ends_with_the_server_which_does_not_wait_for_it(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server, listening(server) as events:
        next(events)
        server.send_signal(signal.SIGTERM)
        assert all(kind in ("status", "change") for kind, _ in events)


def test_many_listeners_are_cheap_and_those_that_do_not_read_hold_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server, contextlib.ExitStack() as open_sockets:
        process = psutil.Process(server.process.pid)
        server.request("POST", "/v1/chat/completions", {"model": "bird", **ASK})
        for _ in range(100):
            deaf = open_sockets.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", server.port))
            deaf.sendall(b"GET /status/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with listening(server) as events:
            next(events)
            before = process.memory_info().rss
            for number in range(50):
                server.request("POST", "/v1/chat/completions", {"model": "bird", **ASK})
                if number % 10 == 0:
                    save(tmp_path / "models.yaml", MANIFEST + f"\n# {number}")
            assert process.memory_info().rss - before < 30e6
        spent = process.cpu_times().user
        threading.Event().wait(2)
        assert process.cpu_times().user - spent < 1


def test_listeners_that_leave_are_forgotten(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        process = psutil.Process(server.process.pid)
        server.get("/health")
        before = process.num_fds()
        for _ in range(20):
            with listening(server) as events:
                next(events)
        while process.num_fds() > before + 5:
            pass  # the time limit of the test is the bound
        assert server.request("HEAD", "/status/events").status == 200


@pytest.mark.parametrize("looks_well", [0, 1])
async def test_a_status_that_cannot_be_described_is_in_the_log_and_ends_no_stream(
    looks_well: int, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    def describe() -> StatusReply:
        nonlocal looks
        looks += 1
        if looks_well < looks <= looks_well + 3:
            raise KeyError("a model that has gone")
        return status(now=looks, revision=looks_well and min(looks, 2))

    live = Live(describe, History())
    async with aclosing(live.events()) as events:
        if looks_well:
            assert b'"revision":1' in await anext(events)
        telling = asyncio.ensure_future(anext(events))
        while not telling.done():
            live.poke()  # something happens all the time
            await asyncio.sleep(0.01)
        assert f'"now":{looks_well + 4}' in telling.result().decode()  # the first that went well again
    told = [record for record in caplog.records if record.name == "localapi.api.admin.status_events"]
    assert [record.exc_info is not None for record in told] == [True]  # once


def test_a_difference_names_what_changed_and_nothing_else() -> None:
    old = status(now=1, models=[model("a"), model("b")])
    new = replace(old, now=2, models=[model("a"), model("b", state="failed")])
    assert difference(old, new) == {"now": 2, "models": [model("b", state="failed")]}
    assert difference(old, replace(new, models=[])) is None


def status(**changes: Any) -> StatusReply:
    return replace(Service(Settings(), ManifestSource()).status(), **changes)


PLACE = PlaceReply(kind="worker", at=None, pid=1, parts=[], replicas=None)


def model(name: str, state: str = "ready") -> ModelReply:
    unknown = dict.fromkeys(each.name for each in fields(ModelReply))
    return ModelReply(**{**unknown, "id": name, "state": state, "place": PLACE})
