"""A server that offers the models of another localapi: what users of the first see."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import Server, save, serving, until

KEY = "a-key-of-the-other-server"
GUEST = "a-key-for-guests-of-ours"
SILENT = socket.create_server(("127.0.0.1", 0))
"""It accepts connections and says nothing: who loads a model from it holds the queue's only place."""
HI = [{"role": "user", "content": "Hi there, you"}]
THERE = {
    "server": {"api_keys": {"us": {"file": "./us.key", "admin": True}}},
    "chat": {
        "parrot": {"backend": "echo", "aliases": ["polly"], "description": "Repeats."},
        "slow": {"backend": "openai", "url": f"http://127.0.0.1:{SILENT.getsockname()[1]}", "max_concurrent": 1},
        "team/draft": {"backend": "echo"},
    },
    "speech": {"tone": {"backend": "echo", "voices": {"amy": {"voice": "x"}}}},
    "embedding": {"words": {"backend": "echo", "matryoshka": True, "prefixes": {"query": "find "}}},
    "rerank": {"order": {"backend": "echo"}},
}


def save_here(here: Server, content: Any) -> None:
    save(here.folder / "models.yaml", json.dumps(content))
    assert here.reload()["ok"]


def ids(server: Server) -> list[str]:
    return [model["id"] for model in server.get("/v1/models")["data"]]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("there")
    (folder / "us.key").write_text(KEY)
    with SILENT, serving(folder, json.dumps(THERE)) as server:
        yield server


@pytest.fixture(scope="module")
def here(there: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "us.key").write_text(KEY)
    with serving(folder, json.dumps(manifest(there))) as server:
        until(lambda: "studio/parrot" in ids(server))
        yield server


def manifest(there: Server, **more: Any) -> dict[str, Any]:
    studio = {"url": there.url, "key": {"file": "./us.key"}, "except": ["*draft"]}
    chat = {"own": {"backend": "echo"}, "both": {"backend": "pool", "of": ["studio/parrot", "own"]}}
    return {"peers": {"studio": studio}, "chat": chat, **more}


def test_its_models_are_listed_as_it_describes_them(here: Server, there: Server) -> None:
    assert ids(here)[2:] == ["studio/parrot", "studio/slow", "studio/tone", "studio/words", "studio/order"]
    parrot, original = (
        here.get("/v1/models/studio/polly"),
        there.request("GET", "/v1/models/parrot", headers={"Authorization": f"Bearer {KEY}"}).json(),
    )
    assert (parrot["id"], parrot["aliases"], parrot["peer"]) == ("studio/parrot", ["studio/polly"], "studio")
    same = ("kind", "description", "capabilities", "context_length", "input", "output")
    assert {name: parrot[name] for name in same} == {name: original[name] for name in same}
    place = here.model("studio/parrot")["place"]
    assert (place["kind"], place["at"], place["pid"], place["parts"]) == ("peer", "studio", None, [])
    assert [each["state"] for each in here.model("both")["place"]["parts"]] == ["unloaded", "unloaded"]
    (voice,) = here.get("/v1/audio/voices?model=studio/tone")["voices"]
    assert voice["id"] == "amy"


def test_every_kind_answers(here: Server) -> None:
    def post(path: str, body: Any) -> Any:
        return here.request("POST", path, body).json()

    chat = post("/v1/chat/completions", {"model": "studio/polly", "messages": HI})
    assert chat["choices"][0]["message"]["content"] == "Hi there, you"
    text = post("/v1/completions", {"model": "studio/parrot", "prompt": "Hello"})
    assert text["choices"][0]["text"] == "Hello"
    sound = {"model": "studio/tone", "input": "Hi.", "voice": "amy", "response_format": "wav"}
    assert here.request("POST", "/v1/audio/speech", sound).body[:4] == b"RIFF"
    found = post("/v1/embeddings", {"model": "studio/words", "input": "cat", "dimensions": 8, "input_type": "query"})
    wanted = post("/v1/embeddings", {"model": "studio/words", "input": "find cat", "dimensions": 8})
    assert (found["data"], found["usage"]["prompt_tokens"]) == (wanted["data"], 2)
    order = post("/v1/rerank", {"model": "studio/order", "query": "cat", "documents": ["a dog", "the cat"]})
    assert [each["index"] for each in order["results"]] == [1, 0]


def test_a_stream_says_where_it_waits_in_the_queue_there(here: Server) -> None:
    body = json.dumps({"model": "studio/slow", "messages": HI, "stream": True})

    def progress_of(connection: http.client.HTTPConnection, state: str) -> Any:
        connection.request("POST", "/v1/chat/completions", body)
        for line in connection.getresponse():
            said = json.loads(line[1:])["progress"] if line.startswith(b":") else {}
            if said.get("state") == state:
                return said
        return {}

    connections = [http.client.HTTPConnection("127.0.0.1", here.port, timeout=60) for _ in range(2)]
    with contextlib.closing(connections[0]), contextlib.closing(connections[1]):
        assert progress_of(connections[0], "loading")["at"] == "studio"
        queued = progress_of(connections[1], "queued")
    assert queued.pop("position") > 0
    assert queued == {"state": "queued", "model": "studio/slow", "at": "studio"}


def test_it_cannot_be_loaded_or_unloaded_from_here(here: Server) -> None:
    reply = here.request("POST", "/admin/models/studio%2Fparrot/load")
    assert (reply.status, reply.json()["error"]["param"]) == (400, "model")


def test_requests_that_come_back_are_an_error(here: Server, there: Server) -> None:
    """The other server gets a peer, too: this one. A pool here leads to a pool there, and that leads back."""
    here_again = manifest(there)
    here_again["chat"]["circle"] = {"backend": "pool", "of": ["studio/circle"]}
    save_here(here, here_again)
    there_too = json.loads(json.dumps(THERE))
    there_too["peers"] = {"laptop": {"url": here.url}}
    there_too["chat"]["circle"] = {"backend": "openai", "url": here.url, "model": "circle"}
    save(there.folder / "models.yaml", json.dumps(there_too))
    until(lambda: "studio/circle" in ids(here))
    reply = here.request("POST", "/v1/chat/completions", {"model": "circle", "messages": HI})
    assert reply.status == 503
    assert "returned to this server" in reply.json()["error"]["message"]
    assert not [name for name in ids(here) if "laptop" in name]  # what a peer has from peers is not passed on
    save(there.folder / "models.yaml", json.dumps(THERE))
    save_here(here, manifest(there))
    until(lambda: "studio/circle" not in ids(here))


def test_a_server_that_is_its_own_peer_says_so(here: Server, there: Server) -> None:
    itself = manifest(there)
    itself["peers"]["mirror"] = {"url": here.url}
    save_here(here, itself)
    until(lambda: here.status()["warnings"])
    assert "itself" in here.status()["warnings"][0]
    save_here(here, manifest(there))
    assert here.status()["warnings"] == []


def test_keys_open_models_of_peers_by_name_alias_and_pattern(here: Server, there: Server) -> None:
    (here.folder / "guest.key").write_text(GUEST)
    (here.folder / "admin.key").write_text(KEY[::-1])
    headers = {"Authorization": f"Bearer {GUEST}"}
    for opened, expected in (["studio/polly"], ["studio/parrot"]), (["own", "studio/*"], None):
        keys = {"guest": {"file": "./guest.key", "models": opened}, "us": {"file": "./admin.key", "admin": True}}
        save(here.folder / "models.yaml", json.dumps(manifest(there, server={"api_keys": keys})))
        here.request("POST", "/admin/reload", headers={"Authorization": f"Bearer {KEY[::-1]}"})
        seen = [model["id"] for model in here.request("GET", "/v1/models", headers=headers).json()["data"]]
        assert seen == (
            expected or ["own", "studio/parrot", "studio/slow", "studio/tone", "studio/words", "studio/order"]
        )
    save(here.folder / "models.yaml", json.dumps(manifest(there)))
    here.request("POST", "/admin/reload", headers={"Authorization": f"Bearer {KEY[::-1]}"})


def test_what_the_peer_changes_arrives_even_beside_an_invalid_file(here: Server, there: Server) -> None:
    save(here.folder / "models.yaml", "chat: [")
    assert not here.reload()["ok"]
    changed = json.loads(json.dumps(THERE))
    changed["chat"]["new"] = changed["chat"].pop("slow")
    save(there.folder / "models.yaml", json.dumps(changed))
    until(lambda: "studio/new" in ids(here))
    assert "studio/slow" not in ids(here)
    assert not here.status()["last_attempt"]["ok"]
    save_here(here, manifest(there))


def test_a_peer_that_is_away_is_a_warning_and_comes_back_by_itself(here: Server, there: Server) -> None:
    (here.folder / "us.key").write_text("another-key-than-that-one")
    until(lambda: here.model("studio/parrot")["state"] == "failed")
    assert "401" in here.status()["warnings"][0]
    shown = here.request("GET", "/status").body.decode() + "\n".join(here.lines)
    assert "another-key" not in shown
    assert KEY not in shown
    assert here.model("studio/parrot")["healthy"] is False
    reply = here.request("POST", "/v1/chat/completions", {"model": "studio/parrot", "messages": HI})
    assert (reply.status, reply.json()["error"]["code"]) == (503, "upstream_refused")
    spared = here.request("POST", "/v1/chat/completions", {"model": "both", "messages": HI})
    assert (spared.status, spared.headers["x-served-by"]) == (200, "own")
    (here.folder / "us.key").write_text(KEY)
    until(lambda: here.model("studio/parrot")["state"] != "failed")
    assert here.request("POST", "/v1/chat/completions", {"model": "studio/parrot", "messages": HI}).status == 200


def test_a_member_of_a_peer_that_never_answered_is_passed_over(here: Server, there: Server) -> None:
    content = manifest(there)
    content["peers"]["gone"] = {"url": "http://127.0.0.1:9", "connect_seconds": 1}
    content["chat"]["spared"] = {"backend": "pool", "of": ["gone/model", "own"]}
    save_here(here, content)
    until(lambda: any("gone/model" in warning for warning in here.status()["warnings"]))
    reply = here.request("POST", "/v1/chat/completions", {"model": "spared", "messages": HI})
    assert (reply.status, reply.headers["x-served-by"]) == (200, "own")
    assert [part["away"] is None for part in here.model("spared")["place"]["parts"]] == [True, False]
    assert [(peer["name"], peer["healthy"]) for peer in here.status()["peers"]] == [("studio", True), ("gone", False)]
    metrics = here.request("GET", "/metrics").body.decode()
    assert 'localapi_peer_healthy{peer="gone"} 0.0' in metrics
    assert 'localapi_model_place{at="studio",kind="peer",model="studio/parrot"} 1.0' in metrics
    save_here(here, manifest(there))
    assert here.status()["warnings"] == []


def test_a_peer_that_is_removed_takes_its_models_along(here: Server, there: Server) -> None:
    content = manifest(there)
    del content["peers"], content["chat"]["both"]
    save_here(here, content)
    assert ids(here) == ["own"]
