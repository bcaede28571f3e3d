"""Pools over real servers and workers, as clients see them: HTTP, edits of the file, workers that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import signal
import socket
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.raw_upstream import Connection, raw_upstream
from tests.server import Server, save, serving

CHAT = "/v1/chat/completions"
MANIFEST = """
server:
  api_keys: {operator: {file: operator.key, admin: true}, guest: {file: guest.key, models: [both]}}
chat:
  one: {backend: echo, defaults: {max_tokens: 2}}
  two: {backend: echo, aliases: [zwei], unsupported: warn}
  broken: {backend: openai, url: 'http://127.0.0.1:1'}  # nothing listens there
  narrow: {backend: mlx-lm, path: demo, context_length: 64}
  both: {backend: pool, of: [broken, zwei]}
  either: {backend: pool, of: [one, two]}
  down: {backend: pool, of: [broken]}
  mixed: {backend: pool, of: [one, narrow]}
speech:
  tone: {backend: echo, voices: {amy: {}, joe: {}}}
  hum: {backend: echo, voices: {joe: {}}, max_input_characters: 20}
  sound: {backend: pool, of: [tone, hum]}
embedding:
  near: {backend: echo}
  vectors: {backend: pool, of: [near]}
rerank:
  judge: {backend: echo}
  jury: {backend: pool, of: [judge]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pools")
    (folder / "operator.key").write_text("o" * 16)
    (folder / "guest.key").write_text("g" * 16)
    save(folder / "models.yaml", MANIFEST)
    with serving(folder) as server:
        yield server


def key(letter: str = "o") -> dict[str, str]:
    return {"Authorization": f"Bearer {letter * 16}"}


def body(model: str, text: str = "one two three", **options: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **options}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_does_not_notice_a_member_that_cannot_be_reached(server: Server, stream: bool) -> None:
    reply = server.request("POST", CHAT, body("both", stream=stream), key())
    assert reply.status == 200
    assert b'"model":"both"' in reply.body
    assert b"three" in reply.body
    assert reply.headers["x-served-by"] == "two"
    (pool,) = [
        each for each in server.request("GET", "/status", headers=key()).json()["models"] if each["id"] == "both"
    ]
    members = {each["name"]: each for each in pool["place"]["parts"]}
    assert members["broken"]["passed_over"] >= 1
    assert members["broken"]["away"]
    assert members["two"]["answered"] >= 1


def test_the_answering_member_decides_about_parameters(server: Server) -> None:
    reply = server.request("POST", CHAT, body("either"), key())
    assert reply.json()["choices"][0]["message"]["content"] == "one two"  # the defaults of the first
    refused = server.request("POST", CHAT, body("either", response_format={"type": "json_object"}), key())
    assert (refused.status, refused.json()["error"]["param"]) == (400, "response_format")
    warned = server.request("POST", CHAT, body("both", response_format={"type": "json_object"}), key())
    assert (warned.status, warned.headers["x-unsupported-params"]) == (200, "response_format")


def test_a_key_for_the_pool_alone_may_use_it_and_learns_no_other_names(server: Server) -> None:
    reply = server.request("POST", CHAT, body("both"), key("g"))
    assert (reply.status, "x-served-by" in reply.headers) == (200, False)
    assert server.request("POST", CHAT, body("two"), key("g")).status == 404
    (model,) = server.request("GET", "/v1/models", headers=key("g")).json()["data"]
    assert (model["id"], model["members"]) == ("both", [])


def test_if_no_member_can_answer_the_reply_says_why_and_when_to_come_back(server: Server) -> None:
    reply = server.request("POST", CHAT, body("down"), key())
    assert (reply.status, reply.json()["error"]["code"]) == (503, "model_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    assert "broken: " in reply.json()["error"]["message"]


def test_a_pool_offers_what_all_members_can(server: Server) -> None:
    models = {each["id"]: each for each in server.request("GET", "/v1/models", headers=key()).json()["data"]}
    assert (models["mixed"]["context_length"], models["mixed"]["members"]) == (64, ["one", "narrow"])
    assert (models["sound"]["voices"], models["sound"]["max_input_characters"]) == (["joe"], 20)
    voices = server.request("GET", "/v1/audio/voices?model=sound", headers=key()).json()["voices"]
    assert [(each["id"], each["model"]) for each in voices] == [("joe", "sound")]


def test_all_kinds_and_dialects_go_through_pools(server: Server) -> None:
    said = server.request("POST", "/v1/audio/speech", {"model": "sound", "input": "Hi.", "voice": "joe"}, key())
    assert (said.status, said.headers["x-served-by"]) == (200, "tone")
    done = server.request("POST", "/v1/completions", {"model": "both", "prompt": ["a b", "c d"]}, key())
    assert [each["text"] for each in done.json()["choices"]] == ["a b", "c d"]
    embedded = server.request("POST", "/v1/embeddings", {"model": "vectors", "input": "cat"}, key())
    assert (embedded.status, embedded.headers["x-served-by"]) == (200, "near")
    ranked = server.request("POST", "/v1/rerank", {"model": "jury", "query": "cat", "documents": ["cat", "dog"]}, key())
    assert (ranked.status, ranked.headers["x-served-by"]) == (200, "judge")
    message = {"model": "both", "max_tokens": 9, "messages": [{"role": "user", "content": "a b"}]}
    claude = server.request("POST", "/v1/messages", message, key())
    assert (claude.json()["model"], claude.json()["content"][0]["text"]) == ("both", "a b")
    counted = server.request("POST", "/v1/tokenize", {"model": "both", "text": "abc"}, key())
    assert counted.json()["count"] == 3


def test_metrics_count_members(server: Server) -> None:
    server.request("POST", CHAT, body("both"), key())
    text = server.request("GET", "/metrics", headers=key()).body.decode()
    assert 'localapi_pool_answers_total{member="two",model="both"}' in text
    assert 'localapi_pool_passed_over_total{member="broken",model="both"}' in text
    assert 'localapi_pool_member_away{member="two",model="both"} 0.0' in text


STORM = """
chat:
  first: {{backend: mlx-lm, path: demo, max_concurrent: {limit}}}
  second: {{backend: mlx-lm, path: demo, preload: true}}
  third: {{backend: echo}}
  pool: {{backend: pool, of: [{members}], choose: {choose}}}
"""


async def test_streams_survive_kills_of_workers_and_edits_of_the_pool(tmp_path: Path) -> None:
    """Sixteen streams, and each has either nothing sent and another member, or its own text up to an error."""
    edits = [
        {"members": "first, second, third", "choose": "in-order", "limit": 4},
        {"members": "second, first, third", "choose": "least-busy", "limit": 2},
        {"members": "third, second", "choose": "sticky", "limit": 3},
    ]
    save(tmp_path / "models.yaml", STORM.format(**edits[0]))
    chance = random.Random(7)
    with serving(tmp_path) as server:
        client = server.async_client()

        async def stream(number: int) -> None:
            for turn in range(2):
                text = f"stream {number} turn {turn}"
                said, error = "", ""
                try:
                    reply = await client.chat.completions.create(
                        model="pool", messages=[{"role": "user", "content": text}], stream=True, max_tokens=12,
                        temperature=0,
                    )  # fmt: skip
                    async for chunk in reply:
                        said += chunk.choices[0].delta.content or "" if chunk.choices else ""
                except openai.APIError as caught:
                    error = str(caught)
                assert said, f"nothing was sent, and it failed: {error}"
                assert error or not said.startswith("stream") or said == text

        async def disturb() -> None:
            for edit in [*edits[1:], edits[0]]:
                await asyncio.sleep(0.4)
                models = (await asyncio.to_thread(server.status))["models"]
                pids = [each["place"]["pid"] for each in models if each["place"]["pid"]]
                if pids:
                    os.kill(chance.choice(pids), signal.SIGKILL)
                save(tmp_path / "models.yaml", STORM.format(**edit))

        await asyncio.gather(disturb(), *(stream(number) for number in range(16)))
        await client.close()
        assert server.model("pool")["leases"] == 0


def test_a_server_that_accepts_no_connection_is_given_up_after_the_pool_s_limit(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(2):  # the backlog is full, and the system answers no further connection
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        save(
            tmp_path / "models.yaml",
            f"chat:\n  far: {{backend: openai, url: 'http://127.0.0.1:{address[1]}', connect_seconds: 300}}\n"
            "  near: {backend: echo}\n  pool: {backend: pool, of: [far, near], give_up_after: {connect: 0.2}}\n",
        )
        server = held.enter_context(serving(tmp_path))
        reply = server.request("POST", CHAT, body("pool"))
        assert (reply.status, reply.headers["x-served-by"]) == (200, "near")
        assert "0.2 s" in server.model("pool")["place"]["parts"][0]["away"]


async def test_a_file_that_is_sent_whole_begins_again_at_another_member(tmp_path: Path) -> None:
    """The first member breaks off in the middle of the sound, of which the client has had nothing."""

    async def breaks_off(connection: Connection) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ncontent-length: 96000\r\n\r\n"
        await connection.send(head + bytes(48_000))
        connection.writer.close()

    async with raw_upstream(breaks_off) as upstream:
        save(
            tmp_path / "models.yaml",
            f"speech:\n  far: {{backend: openai, url: '{upstream.url}'}}\n  near: {{backend: echo}}\n"
            "  pool: {backend: pool, of: [far, near]}\n",
        )
        with serving(tmp_path) as server:
            sound = {"model": "pool", "input": "Hello.", "response_format": "wav", "stream": False}
            reply = await asyncio.to_thread(server.request, "POST", "/v1/audio/speech", sound)
    assert (reply.status, reply.headers["x-served-by"]) == (200, "near")
    assert "/v1/audio/speech" in [each.path for each in upstream.asked]
    with wave.open(io.BytesIO(reply.body)) as file:
        assert 0 < file.getnframes() < 24_000  # that of one member alone
