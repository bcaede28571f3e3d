"""Pins by hand: loaded and kept, whatever keep_alive and memory say; and every way in which one ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Reply, Server, save, serving

MANIFEST = "chat: {bird: {backend: echo, keep_alive: 0, aliases: [tweety]}, cat: {backend: echo, pin: true}}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, MANIFEST) as server:
        yield server


def tell(server: Server, name: str, what: str) -> Reply:
    return server.request("POST", f"/admin/models/{name}/{what}")


def pinned(server: Server, name: str = "bird") -> tuple[str, str | None]:
    model = server.model(name)
    return model["state"], model["pinned_by"]


def ask(server: Server) -> None:
    body = {"model": "bird", "messages": [{"role": "user", "content": "hi"}]}
    assert server.request("POST", "/v1/chat/completions", body).status == 200


def until_unloaded(server: Server, name: str = "bird") -> None:
    while server.model(name)["state"] != "unloaded":
        pass  # the time limit of the test is the bound


def test_it_is_loaded_and_stays_until_it_is_unpinned(server: Server) -> None:
    reply = tell(server, "tweety", "pin")
    assert (reply.status, reply.json()["id"]) == (200, "bird")
    assert (reply.json()["state"], reply.json()["pinned"]) == ("ready", True)
    ask(server)  # keep_alive: 0 would end it after this
    server.reload()
    assert pinned(server) == ("ready", "hand")
    assert server.model("bird")["loads"] == 1

    assert tell(server, "bird", "unpin").json()["pinned"] is False
    until_unloaded(server)
    assert pinned(server)[1] is None


def test_it_goes_on_where_the_entry_changes_and_ends_where_its_pin_is_edited(server: Server, tmp_path: Path) -> None:
    tell(server, "bird", "pin")
    save(tmp_path / "models.yaml", MANIFEST.replace("keep_alive: 0", "keep_alive: 0, description: Sings."))
    server.reload()
    assert pinned(server) == ("ready", "hand")

    save(tmp_path / "models.yaml", MANIFEST.replace("keep_alive: 0", "keep_alive: 0, pin: true"))
    server.reload()
    assert pinned(server) == ("ready", "manifest")

    save(tmp_path / "models.yaml", MANIFEST)
    server.reload()
    until_unloaded(server)
    assert pinned(server)[1] is None


def test_it_ends_with_its_entry(server: Server, tmp_path: Path) -> None:
    tell(server, "bird", "pin")
    save(tmp_path / "models.yaml", "chat: {cat: {backend: echo}}")
    server.reload()
    save(tmp_path / "models.yaml", MANIFEST)
    server.reload()
    assert pinned(server) == ("unloaded", None)


def test_unloading_by_hand_is_the_later_word(server: Server) -> None:
    tell(server, "bird", "pin")
    assert tell(server, "bird", "unload").status == 200
    assert pinned(server) == ("unloaded", None)


def test_what_the_manifest_pins_cannot_be_unpinned_by_hand(server: Server) -> None:
    reply = tell(server, "cat", "unpin")
    assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_value")
    assert "Remove `pin: true`" in reply.json()["error"]["message"]
    assert pinned(server, "cat")[1] == "manifest"


def test_a_model_that_nobody_pinned_can_be_unpinned(server: Server) -> None:
    assert tell(server, "bird", "unpin").status == 200
    assert tell(server, "nobody", "pin").status == 404


def test_what_does_not_load_is_not_pinned(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with serving(tmp_path, "chat: {broken: {backend: mlx-lm, path: ./empty}}") as server:
        assert tell(server, "broken", "pin").status == 503
        assert pinned(server, "broken") == ("failed", None)


def test_a_changed_model_takes_the_pin_over_and_memory_leaves_it(tmp_path: Path) -> None:
    demo = "backend: mlx-lm, path: demo, swap: cold"
    manifest = f"server: {{memory_budget: 150MB}}\nchat: {{one: {{{demo}}}, two: {{{demo}}}}}"
    with serving(tmp_path, manifest) as server:
        assert tell(server, "one", "pin").status == 200
        reply = tell(server, "two", "load")
        assert reply.status == 503
        assert "one" in reply.json()["error"]["message"]  # which must stay

        save(tmp_path / "models.yaml", manifest.replace(f"one: {{{demo}", f"one: {{{demo}, max_batch: 2"))
        assert server.reload()["changes"]["changed"] == ["one"]
        assert pinned(server, "one") == ("ready", "hand")
        assert server.model("one")["since_revision"] == 2
