"""A server that has its models on another one: what users of the first see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import Server, serving

KEY = "a-key-of-the-other-server"
HI = [{"role": "user", "content": "Hi there, you"}]
THERE = {
    "server": {"api_keys": {"us": {"file": "./us.key"}}},
    "chat": {"parrot": {"backend": "echo"}},
    "speech": {"tone": {"backend": "echo", "voices": {"amy": "x"}}},
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("there")
    (folder / "us.key").write_text(KEY)
    with serving(folder, json.dumps(THERE)) as server:
        yield server


def manifest(there: Server, **chat: Any) -> str:
    at = {"backend": "openai", "url": f"http://127.0.0.1:{there.port}", "key": {"file": "./us.key"}}
    entries = {"far": {**at, "model": "parrot", "locked": {"seed": 5}}, **chat}
    return json.dumps({"chat": entries, "speech": {"sound": {**at, "model": "tone"}}})


@pytest.fixture(scope="module")
def here(there: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "us.key").write_text(KEY)
    with serving(folder, manifest(there)) as server:
        yield server


def test_a_whole_answer_comes_with_its_usage(here: Server) -> None:
    reply = here.request("POST", "/v1/chat/completions", {"model": "far", "messages": HI, "zap": 1, "seed": 1})
    assert reply.json()["choices"][0]["message"]["content"] == "Hi there, you"
    assert (reply.json()["model"], reply.json()["usage"]["total_tokens"]) == ("far", 6)
    assert "x-ignored-params" not in reply.headers  # it was sent on
    assert reply.headers["x-locked-params"] == "seed"


def test_a_stream_comes_as_it_is_and_is_counted_although_nobody_asked(here: Server) -> None:
    chunks = list(here.client().chat.completions.create(model="far", messages=HI, stream=True))  # type: ignore[arg-type,call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hi there, you"
    assert all(chunk.usage is None for chunk in chunks)
    metrics = here.request("GET", "/metrics").body.decode()
    assert 'localapi_completion_tokens_total{model="far"}' in metrics


def test_tokens_come_from_there(here: Server) -> None:
    assert here.request("POST", "/v1/tokenize", {"model": "far", "text": "ab"}).json()["tokens"] == [97, 98]
    assert here.request("POST", "/v1/detokenize", {"model": "far", "tokens": [97, 98]}).json()["text"] == "ab"


def test_speech_comes_in_the_format_of_the_other_server(here: Server) -> None:
    body = {"model": "sound", "input": "Hi.", "voice": "amy", "response_format": "wav"}
    reply = here.request("POST", "/v1/audio/speech", body)
    assert (reply.status, reply.headers["content-type"], reply.body[:4]) == (200, "audio/wav", b"RIFF")
    voices = here.request("GET", "/v1/audio/voices?model=sound").json()["voices"]
    assert [(voice["id"], voice["source"]) for voice in voices] == [("amy", "engine")]
    refused = here.request("POST", "/v1/audio/speech", {**body, "speed": 99})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "speed")


def test_an_edit_brings_another_upstream_and_a_wrong_key_is_our_fault(here: Server, there: Server) -> None:
    (here.folder / "wrong.key").write_text("some-other-key-than-that")
    bad = {"backend": "openai", "url": f"http://127.0.0.1:{there.port}/v1", "model": "parrot"}
    text = manifest(there, bad={**bad, "key": {"file": "./wrong.key"}})
    (here.folder / "models.yaml").write_text(text)
    here.reload()
    reply = here.request("POST", "/v1/chat/completions", {"model": "bad", "messages": HI})
    assert (reply.status, reply.json()["error"]["code"]) == (503, "upstream_refused")
    assert reply.headers["x-should-retry"] == "false"
    log = "\n".join(here.lines)
    assert KEY not in log
    assert "some-other-key" not in log + here.request("GET", "/status").body.decode()
