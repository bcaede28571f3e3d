"""`/admin/captures`: the latest requests to models with their replies, without keys, for those who may see them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import Reply, Server, save, serving

KEYS = {"BOSS": "boss-key-0123456789", "GUEST": "guest-key-0123456789"}
MANIFEST = """\
server:
  api_keys: {boss: {env: BOSS, admin: true}, guest: {env: GUEST}}
  capture: {requests: 3}
chat: {bird: {backend: echo}}
speech: {beep: {backend: echo}}
"""
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("captures"), MANIFEST, env=KEYS) as server:
        yield server


def ask(server: Server, method: str, path: str, body: Any = None, key: str = "BOSS") -> Reply:
    return server.request(method, path, body, {"Authorization": f"Bearer {KEYS[key]}"})


def test_a_request_and_its_reply_are_kept_without_its_key(server: Server) -> None:
    asked = {"model": "bird", "messages": [{"role": "user", "content": "hello there"}], "stream": True}
    said = ask(server, "POST", CHAT, asked, key="GUEST")
    found = ask(server, "GET", "/admin/captures").json()
    first = found["captures"][0]
    assert (first["id"], first["model"], first["key"], first["status"]) == (
        said.headers["x-request-id"], "bird", "guest", 200,
    )  # fmt: skip
    assert first["seconds"] >= first["first_seconds"] > 0
    whole = ask(server, "GET", f"/admin/captures/{first['id']}")
    assert json.loads(whole.json()["request"]["text"]) == asked
    assert whole.json()["reply"]["text"].encode() == said.body
    assert not any(key.encode() in whole.body for key in KEYS.values())


def test_sound_is_told_by_its_size_and_only_the_latest_are_kept(server: Server) -> None:
    for _ in range(4):
        said = ask(server, "POST", "/v1/audio/speech", {"model": "beep", "input": "hi", "response_format": "wav"})
    found = ask(server, "GET", "/admin/captures").json()["captures"]
    assert len(found) == 3
    reply = ask(server, "GET", f"/admin/captures/{found[0]['id']}").json()["reply"]
    assert (reply["text"], reply["bytes"]) == (None, len(said.body))
    assert ask(server, "POST", "/admin/captures/clear").json()["captures"] == []


def test_the_use_of_each_key_is_counted_by_its_name(server: Server) -> None:
    def used() -> dict[str, Any]:
        told = ask(server, "GET", "/status").json()["usage"]
        counts: dict[str, Any] = {each["key"]: each["counts"] for each in told}.get("guest", {})
        return counts

    before = used()
    asked = {"model": "bird", "messages": [{"role": "user", "content": "one two three"}]}
    usage = ask(server, "POST", CHAT, asked, key="GUEST").json()["usage"]
    after = used()
    assert after["requests"] == before.get("requests", 0) + 1
    assert after["prompt_tokens"] == before.get("prompt_tokens", 0) + usage["prompt_tokens"]
    assert after["completion_tokens"] == before.get("completion_tokens", 0) + usage["completion_tokens"]
    text = ask(server, "GET", "/metrics").body.decode()
    assert f'localapi_key_completion_tokens_total{{key="guest"}} {after["completion_tokens"]}' in text
    assert not any(key in text for key in KEYS.values())


def test_only_an_admin_sees_them(server: Server) -> None:
    assert ask(server, "GET", "/admin/captures", key="GUEST").status == 403
    assert server.request("GET", "/admin/captures").status == 401
    assert ask(server, "GET", "/admin/captures/req_0").status == 404


def test_an_edit_switches_it_off_and_they_are_forgotten(server: Server) -> None:
    ask(server, "POST", CHAT, {"model": "bird", "messages": [{"role": "user", "content": "hi"}]})
    save(server.folder / "models.yaml", MANIFEST.replace("  capture: {requests: 3}\n", ""))
    assert ask(server, "POST", "/admin/reload").status == 200
    found = ask(server, "GET", "/admin/captures").json()
    assert (found["enabled"], found["captures"], found["bytes"]) == (False, [], 0)
