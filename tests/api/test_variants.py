"""Variants as clients meet them: one loaded model with several names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server import Server, save, serving

MANIFEST = """
chat:
  base:
    backend: mlx-lm
    path: demo
    defaults: {temperature: 0, max_tokens: 6}
    variants:
      terse: {aliases: [t], defaults: {max_tokens: 2}}
      strict: {locked: {max_tokens: 3, system: You are a parrot.}}
"""
ASK = {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "What can you do?"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("variants"), MANIFEST) as server:
        yield server


def test_every_variant_is_listed_with_its_model(server: Server) -> None:
    listed = server.get("/v1/models")["data"]
    assert [(each["id"], each.get("variant_of")) for each in listed] == [
        ("base", None), ("terse", "base"), ("strict", "base"),
    ]  # fmt: skip
    assert [each["id"] for each in server.get("/status")["models"]] == ["base"]
    assert [each["id"] for each in server.model("base")["variants"]] == ["terse", "strict"]
    assert server.get("/v1/models/t")["id"] == "terse"


@pytest.mark.parametrize(("name", "tokens", "locked"), [("base", 6, None), ("t", 2, None), ("strict", 3, "messages")])
def test_a_variant_answers_with_its_own_parameters(server: Server, name: str, tokens: int, locked: str | None) -> None:
    reply = server.request("POST", "/v1/chat/completions", {"model": name, **ASK})
    assert reply.json()["usage"]["completion_tokens"] <= tokens
    assert reply.headers.get("x-locked-params") == locked


def test_the_other_dialects_know_variants_too(server: Server) -> None:
    turn = [{"role": "user", "content": "hi"}]
    message = server.request(
        "POST", "/v1/messages", {"model": "strict", "max_tokens": 9, "system": "x", "messages": turn}
    )
    assert message.json()["usage"]["output_tokens"] <= 3
    assert message.headers["x-locked-params"] == "max_tokens, system"
    chat = server.request("POST", "/api/chat", {"model": "terse:latest", "stream": False, "messages": turn})
    assert (chat.json()["model"], chat.json()["eval_count"]) == ("terse", 2)
    response = server.request("POST", "/v1/responses", {"model": "terse", "input": "hi", "store": False})
    assert response.json()["usage"]["output_tokens"] == 2


def test_all_names_share_one_process_and_an_edit_of_a_variant_loads_nothing(server: Server) -> None:
    server.request("POST", "/admin/models/terse/load")
    before = server.model("base")
    save(server.folder / "models.yaml", MANIFEST.replace("max_tokens: 2", "max_tokens: 1").replace("strict:", "other:"))
    server.wait_for("reloaded revision 2: =base")
    after = server.model("base")
    assert (before["place"]["pid"], before["loads"]) == (after["place"]["pid"], after["loads"])
    reply = server.request("POST", "/v1/chat/completions", {"model": "terse", **ASK})
    assert reply.json()["usage"]["completion_tokens"] == 1
    assert server.request("POST", "/v1/chat/completions", {"model": "strict", **ASK}).status == 404
    assert server.request("POST", "/admin/models/other/unload").status == 200
    assert server.model("base")["state"] == "unloaded"
