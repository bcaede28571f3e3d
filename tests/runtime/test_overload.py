"""More requests than a model may work on: a line in order, its limits, and edits of them, on a real model."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import NO_WORK, Server, save, serving, until

CHAT = "/v1/chat/completions"
STORY = [{"role": "user", "content": "Tell me a story."}]


def manifest(model: Path, **options: object) -> str:
    said = "".join(f", {name}: {value}" for name, value in options.items())
    always = "backend: mlx-lm, speculation: 'off', defaults: {temperature: 0}"  # it repeats itself, token by token
    return f"chat: {{endless: {{{always}, path: {model}{said}}}}}"


def body(**options: Any) -> dict[str, Any]:
    return {"model": "endless", "messages": STORY, **options}


def queued(position: int) -> str:
    """Return the comment of a stream that is queued."""
    progress = {"state": "queued", "model": "endless", "position": position}
    return f": {json.dumps({'progress': progress}, separators=(',', ':'))}"


class Stream:
    """A streamed answer, line by line. Closing it is what a client does that leaves."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.connection.request(
            "POST", CHAT, json.dumps(body(stream=True, **options)), {"Content-Type": "application/json"}
        )

    def reply(self) -> http.client.HTTPResponse:
        return self.connection.getresponse()

    def lines(self) -> Iterator[str]:
        reply = self.reply()
        assert reply.status == 200, reply.read()
        while line := reply.readline():
            if line.strip():
                yield line.decode().strip()

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def streaming(server: Server, **options: Any) -> Iterator[Stream]:
    stream = Stream(server, **options)
    try:
        yield stream
    finally:
        stream.close()


@contextlib.contextmanager
def at_work(server: Server) -> Iterator[Stream]:
    """One answer that never ends."""
    with streaming(server) as stream:
        assert next(line for line in stream.lines() if line.startswith("data: "))
        yield stream


def until_waiting(server: Server, count: int) -> None:
    until(lambda: server.model("endless")["waiting"] == count)


Offer = Callable[..., Server]


@pytest.fixture(scope="module")
def offer(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> Iterator[Offer]:
    """One server whose model stays loaded; what is given are the settings with which it offers it from then on."""
    folder = tmp_path_factory.mktemp("offer")
    with serving(folder, manifest(endless_model)) as server:

        def follow(**options: object) -> Server:
            save(folder / "models.yaml", manifest(endless_model, **options))
            assert server.reload()["ok"]
            return server

        follow(max_concurrent=1)
        assert server.request("POST", "/admin/models/endless/load").status == 200
        yield follow


def test_streams_wait_in_order_see_their_place_and_begin_in_that_order(offer: Offer) -> None:
    server = offer(max_concurrent=1)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(at_work(server))
        waiting = []
        for count in (1, 2, 3):
            waiting.append(stack.enter_context(streaming(server, max_tokens=count)))
            until_waiting(server, count)
        lines = [stream.lines() for stream in waiting]
        assert [next(each) for each in lines] == [
            queued(1),
            queued(2),
            queued(3),
        ]
        waiting[1].close()
        until_waiting(server, 2)
        assert next(line for line in lines[2] if line != queued(3)) == queued(2)
        first.close()
        for each in (lines[0], lines[2]):
            assert [line for line in each if not line.startswith(":")][-1] == "data: [DONE]"
        until_waiting(server, 0)
        assert server.model("endless")["leases"] == 0


def test_more_than_may_wait_are_refused_with_the_time_that_the_line_takes(offer: Offer) -> None:
    server = offer(max_concurrent=1, max_waiting=1)
    with at_work(server), streaming(server):
        until_waiting(server, 1)
        reply = server.request("POST", CHAT, body())
        error = reply.json()["error"]
        assert (reply.status, error["code"], error["type"]) == (429, "model_busy", "rate_limit_error")
        assert re.search(r"\b1 waiting .*max_waiting.* \d+ s", error["message"])
        assert int(reply.headers["retry-after"]) >= 1


def test_where_nobody_may_wait_a_request_may_still_load_the_model(tmp_path: Path, endless_model: Path) -> None:
    with serving(tmp_path, manifest(endless_model, max_concurrent=1, max_waiting=0)) as server:
        assert server.request("POST", CHAT, body(max_tokens=1)).status == 200
        with at_work(server):
            assert server.request("POST", CHAT, body()).status == 429


def test_who_waits_too_long_is_told_so_before_and_after_a_stream_began(offer: Offer) -> None:
    server = offer(max_concurrent=1, queue_timeout_seconds=60)
    with at_work(server), streaming(server) as late:
        lines = late.lines()
        assert next(lines) == queued(1)
        offer(max_concurrent=1, queue_timeout_seconds=0.5)  # an edit holds for those who wait already
        *_, last = lines
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_busy"
        reply = server.request("POST", CHAT, body())
        assert (reply.status, reply.json()["error"]["code"]) == (429, "model_busy")
        assert "0.5 s" in reply.json()["error"]["message"]
        assert server.model("endless")["loads"] == 1
    until_waiting(server, 0)


def test_the_wait_for_a_place_in_the_batch_has_an_end_too(offer: Offer) -> None:
    server = offer(max_batch=1, queue_timeout_seconds=60)
    with at_work(server), streaming(server) as late:
        lines = late.lines()
        assert next(lines) == queued(1)
        assert server.model("endless")["waiting"] == 1
        offer(max_batch=1, queue_timeout_seconds=0.5)
        *_, last = lines
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_busy"
        reply = server.request("POST", CHAT, body())
        assert (reply.status, reply.json()["error"]["code"]) == (429, "model_busy")
        assert server.model("endless")["loads"] == 1
    until_waiting(server, 0)


def test_an_edit_that_allows_more_lets_in_who_waits(offer: Offer) -> None:
    server = offer(max_concurrent=1)
    with at_work(server), streaming(server, max_tokens=2) as second:
        until_waiting(server, 1)
        offer(max_concurrent=2)
        assert [*second.lines()][-1] == "data: [DONE]"
        assert server.model("endless")["loads"] == 1


def test_an_edit_that_removes_the_model_is_told_to_who_waits(tmp_path: Path, endless_model: Path) -> None:
    with serving(tmp_path, manifest(endless_model, max_concurrent=1)) as server, at_work(server):
        replies = []
        waiting = threading.Thread(target=lambda: replies.append(server.request("POST", CHAT, body())))
        waiting.start()
        until_waiting(server, 1)
        save(tmp_path / "models.yaml", "chat: {other: {backend: echo}}")
        server.reload()
        waiting.join()
        assert replies[0].status == 404


@pytest.mark.parametrize("stream", [False, True])
def test_work_that_takes_too_long_is_ended(offer: Offer, stream: bool) -> None:
    server = offer(request_timeout_seconds=0.5)
    reply = server.request("POST", CHAT, body(stream=stream))
    content = reply.body.strip().rpartition(b"data: ")[2]
    assert json.loads(content)["error"]["code"] == "request_timeout"
    assert reply.status == (200 if stream else 504)
    assert reply.headers.get("x-should-retry") == (None if stream else "false")
    until(lambda: server.model("endless")["requests"] == NO_WORK)


def test_a_shutdown_answers_who_works_and_refuses_who_still_waits_at_its_end(
    tmp_path: Path, endless_model: Path
) -> None:
    text = f"server: {{drain_seconds: 1}}\n{manifest(endless_model, max_concurrent=1)}"
    with serving(tmp_path, text) as server, at_work(server):
        replies = []
        waiting = threading.Thread(target=lambda: replies.append(server.request("POST", CHAT, body())))
        waiting.start()
        until_waiting(server, 1)
        assert server.stop() == 0
        waiting.join()
        assert replies[0].status == 503
        assert "shutting down" in replies[0].json()["error"]["message"]


def test_who_waits_inside_the_worker_counts_as_waiting(tmp_path: Path, endless_model: Path) -> None:
    with (
        serving(tmp_path, manifest(endless_model, max_batch=1, max_waiting=2)) as server,
        at_work(server) as first,
        contextlib.ExitStack() as stack,
    ):
        waiting = []
        for count in (1, 2):
            waiting.append(stack.enter_context(streaming(server, max_tokens=1)).lines())
            until_waiting(server, count)
        assert [next(each) for each in waiting] == [
            queued(1),
            queued(2),
        ]
        reply = server.request("POST", CHAT, body())
        assert (reply.status, reply.json()["error"]["code"]) == (429, "model_busy")
        assert "2 waiting" in reply.json()["error"]["message"]
        assert int(reply.headers["retry-after"]) >= 1
        first.close()
        until_waiting(server, 0)


def test_who_waits_for_room_for_its_conversation_counts_as_waiting(tmp_path: Path, endless_model: Path) -> None:
    """No more of 32 answers can begin beside one that may fill the memory for conversations."""
    with (
        serving(tmp_path, manifest(endless_model, kv_cache_mb=4, max_waiting=1)) as server,
        at_work(server),
        streaming(server, max_tokens=1) as stream,
    ):
        until_waiting(server, 1)
        assert next(stream.lines()) == queued(1)
        assert server.model("endless")["requests"]["waiting"] == 1
        assert server.request("POST", CHAT, body()).status == 429


def test_as_many_as_the_worker_answers_at_once_do_not_wait(tmp_path: Path, endless_model: Path) -> None:
    with (
        serving(tmp_path, manifest(endless_model, max_batch=3, max_waiting=0)) as server,
        at_work(server),
        at_work(server),
        at_work(server),
    ):
        assert server.model("endless")["waiting"] == 0
        assert server.request("POST", CHAT, body()).status == 429
