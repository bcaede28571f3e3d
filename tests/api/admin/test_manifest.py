"""`/admin/manifest` and `/admin/profile`: the manifest is edited over HTTP, and stays the truth."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edited_server import FAST, as_at_first, edited_server
from tests.server import Reply, Server, save, serving

MANIFEST = """\
chat:
  # the bird
  bird:   # mine
    backend: echo   # no model
    aliases: [sparrow]
  pinned: {backend: echo, pin: true}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with edited_server(tmp_path_factory.mktemp("edited"), MANIFEST) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    return as_at_first(shared, MANIFEST)


def file(server: Server) -> Path:
    return server.folder / "models.yaml"


def digest(server: Server) -> str:
    return hashlib.sha256(file(server).read_bytes()).hexdigest()


def ask(server: Server, what: str, *changes: dict[str, Any], sha256: str | None = None) -> Reply:
    body = {"sha256": sha256 or digest(server), "changes": list(changes)}
    return server.request("POST", f"/admin/manifest/{what}", body)


def bird(**options: Any) -> dict[str, Any]:
    return {"section": "chat", "id": "bird", "options": {"backend": "echo", "aliases": ["sparrow"], **options}}


def test_the_file_is_told_as_data_with_its_places_and_digest(server: Server) -> None:
    told = server.get("/admin/manifest")
    assert (told["sha256"], told["refusal"], told["undo"]) == (digest(server), None, None)
    first = told["written"][0]
    assert (first["section"], first["id"], first["line"]) == ("chat", "bird", 3)
    assert first["options"] == {"backend": "echo", "aliases": ["sparrow"]}
    assert first["yaml"] == "bird:   # mine\n  backend: echo   # no model\n  aliases: [sparrow]\n"


def test_a_plan_tells_what_a_change_would_do_and_saves_nothing(server: Server) -> None:
    changes = (
        bird(description="sings"),
        {"section": "chat", "id": "pinned", "remove": True},
        {"section": "chat", "id": "demo", "options": {"backend": "mlx-lm", "path": "demo", "preload": True}},
    )
    reply = ask(server, "plan", *changes)
    assert reply.status == 200, reply.body
    planned = {each["id"]: each for each in reply.json()["changes"]}
    assert {name: each["does"] for name, each in planned.items()} == {
        "demo": "added", "bird": "in place", "pinned": "removed",
    }  # fmt: skip
    assert planned["demo"]["loads"]
    assert planned["demo"]["expected_bytes"] > 0
    assert reply.json()["memory"]["more_bytes"] == planned["demo"]["expected_bytes"]
    assert file(server).read_text() == MANIFEST


def test_a_model_that_the_budget_has_no_room_for_is_told_before_it_is_saved(server: Server) -> None:
    budget = {"section": "server", "options": {"memory_budget": "1MB"}}
    demo = {"section": "chat", "id": "demo", "options": {"backend": "mlx-lm", "path": "demo", "preload": True}}
    reply = ask(server, "plan", budget, demo).json()
    assert reply["memory"]["fits"] is False
    assert "memory_budget" in next(each for each in reply["changes"] if each["id"] == "demo")["obstacle"]


def test_a_saved_change_keeps_comments_mode_and_link_and_is_followed_and_undone(server: Server) -> None:
    real = server.folder / "real.yaml"
    os.replace(file(server), real)
    file(server).symlink_to(real)
    real.chmod(0o640)
    reply = ask(server, "save", bird(description="sings"))
    assert reply.status == 200, reply.body
    assert real.read_text() == MANIFEST.replace("[sparrow]\n", "[sparrow]\n    description: sings\n")
    assert file(server).is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert server.request("POST", "/admin/reload").status == 200
    assert server.model("bird")["description"] == "sings"

    assert server.get("/admin/manifest")["undo"]["what"] == "chat.bird"
    assert server.request("POST", "/admin/manifest/undo", {"sha256": reply.json()["sha256"]}).status == 200
    assert real.read_text() == MANIFEST
    assert server.request("POST", "/admin/manifest/undo", {"sha256": digest(server)}).status == 409
    file(server).unlink()
    real.rename(file(server))


def test_a_change_of_another_version_is_a_conflict_that_tells_the_difference(server: Server) -> None:
    before = server.get("/admin/manifest")["sha256"]
    save(file(server), MANIFEST.replace("sparrow", "robin"))
    for what in ("plan", "save"):
        reply = ask(server, what, bird(), sha256=before)
        assert (reply.status, reply.json()["error"]["code"]) == (409, "manifest_changed")
        assert "+    aliases: [robin]" in reply.json()["diff"]
    assert "robin" in file(server).read_text()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (bird(nope=1), "chat.bird.nope"),
        (bird(keep_alive="soon"), "chat.bird.keep_alive"),
        ({"section": "chat", "id": "x", "options": {"backend": "mlx-lm", "path": "./missing"}}, "chat.x.path"),
        ({"section": "server", "options": {"log_level": "loud"}}, "server.log_level"),
        ({"section": "peers", "id": "p", "options": {}}, "peers.p.url"),
        ({"section": "chat", "id": "bird", "yaml": "bird: ["}, ""),
    ],
)
def test_an_invalid_change_is_told_at_its_key(server: Server, change: dict[str, Any], key: str) -> None:
    for what in ("plan", "save"):
        reply = ask(server, what, change)
        assert (reply.status, reply.json()["error"]["code"]) == (422, "invalid_manifest")
        assert [problem["key"] for problem in reply.json()["problems"]] == [key]
    assert file(server).read_text() == MANIFEST


@pytest.mark.parametrize(
    "change",
    [
        {"section": "chat", "id": "x", "options": {"backend": "command", "command": ["sh", "{port}"]}},
        {"section": "chat", "id": "x", "options": {"backend": "openai", "url": "http://a", "key": {"env": "PATH"}}},
        {"section": "chat", "id": "x", "options": {"backend": "openai", "url": "http://a/${env.PATH}"}},
        {"section": "server", "options": {"allowed_origins": ["https://evil.example"]}},
        {"section": "server", "options": {"console_edits": "all"}},
        {"section": "peers", "id": "p", "options": {"url": "http://a", "key": {"file": "models.yaml"}}},
    ],
)
def test_without_a_key_nothing_names_programs_secrets_or_what_protects_the_server(
    server: Server, change: dict[str, Any]
) -> None:
    reply = ask(server, "save", change)
    assert (reply.status, reply.json()["error"]["code"]) == (403, "forbidden")
    assert file(server).read_text() == MANIFEST


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
def test_without_a_key_nobody_edits_through_a_proxy(server: Server, header: str) -> None:
    body = {"sha256": digest(server), "changes": [bird()]}
    assert server.request("POST", "/admin/manifest/save", body, {header: "1.2.3.4"}).status == 403
    assert server.request("GET", "/admin/manifest", None, {"Origin": "http://evil.example"}).status == 403


@pytest.mark.parametrize(
    "change",
    [
        {"section": "chat", "id": "", "remove": True},
        {"section": "server", "id": "x", "options": {}},
        {"section": "nope", "id": "x", "options": {}},
        {"section": "chat", "id": "x"},
        {"section": "chat", "id": "x", "remove": True, "options": {}},
    ],
)
def test_nonsense_is_a_bad_request(server: Server, change: dict[str, Any]) -> None:
    assert ask(server, "save", change).status == 400


def test_a_read_only_file_and_one_that_is_gone_are_told(server: Server) -> None:
    file(server).chmod(0o444)
    reply = ask(server, "save", bird(pin=True))
    assert (reply.status, reply.json()["error"]["code"]) == (409, "cannot_edit")
    file(server).chmod(0o644)
    before = digest(server)
    os.replace(file(server), server.folder / "away")
    assert ask(server, "save", bird(pin=True), sha256=before).status == 409
    os.replace(server.folder / "away", file(server))
    assert file(server).read_text() == MANIFEST


def test_a_file_that_is_no_yaml_is_told_and_left_alone(server: Server) -> None:
    save(file(server), "chat: [\n")
    reply = server.request("GET", "/admin/manifest")
    assert (reply.status, reply.json()["problems"][0]["line"]) == (422, 2)
    assert ask(server, "save", bird()).status == 422
    assert file(server).read_text() == "chat: [\n"


def test_entries_of_included_files_are_changed_there_and_undone(server: Server) -> None:
    more = server.folder / "more.yaml"
    more.write_text("# theirs\nchat:\n  other: {backend: echo}\n")
    main = f"include: [more.yaml]\n{MANIFEST}"
    save(file(server), main)
    assert server.request("POST", "/admin/reload").status == 200
    told = server.get("/admin/manifest")
    (other,) = [each for each in told["written"] if each["id"] == "other"]
    assert (other["file"], other["line"], told["elsewhere"]) == ("more.yaml", 3, [])
    digests = {each["path"]: each["sha256"] for each in told["files"]}
    change = {"section": "chat", "id": "other", "options": {"backend": "echo", "aliases": ["parrot"]}}

    def edit(name: str | None, sha256: str | None) -> Reply:
        body = {"file": name, "sha256": sha256, "changes": [change]}
        return server.request("POST", "/admin/manifest/save", body)

    assert edit("../secret.yaml", digests["more.yaml"]).status == 409
    assert edit("more.yaml", digests["models.yaml"]).json()["error"]["code"] == "manifest_changed"
    assert edit(None, digests["models.yaml"]).json()["problems"][0]["source"] in ("models.yaml", "more.yaml")
    seen = more.read_text()
    assert edit("more.yaml", digests["more.yaml"]).status == 200
    assert more.read_text() == "# theirs\nchat:\n  other: {backend: echo, aliases: [parrot]}\n"
    assert file(server).read_text() == main
    undo = server.get("/admin/manifest")["undo"]
    assert server.request("POST", "/admin/manifest/undo", {"sha256": undo["sha256"]}).status == 200
    assert more.read_text() == seen


def test_edits_can_be_switched_off(server: Server) -> None:
    save(file(server), f"server: {{console_edits: false}}\n{MANIFEST}")
    assert server.request("POST", "/admin/reload").status == 200
    assert "console_edits" in server.get("/admin/manifest")["refusal"]
    assert ask(server, "save", bird()).status == 403


def test_a_profile_is_switched_while_the_server_runs(server: Server) -> None:
    told = server.get("/admin/profiles")
    assert (told["active"], {"fast", "broken"} <= set(told["available"])) == (None, True)
    assert server.request("POST", "/admin/profile", {"profile": "fast"}).status == 200
    assert (server.get("/status")["manifest"]["profile"], server.model("bird")["description"]) == ("fast", "fast")
    assert server.get("/admin/manifest")["written"][0]["overridden"].keys() == {"description"}

    save(server.folder / "configs" / "fast.yaml", FAST.replace("description: fast", "description: faster"))
    assert server.request("POST", "/admin/reload").status == 200
    assert server.model("bird")["description"] == "faster"

    reply = server.request("POST", "/admin/profile", {"profile": "broken"})
    assert (reply.status, reply.json()["problems"][0]["key"]) == (422, "chat.bird.nope")
    assert server.request("POST", "/admin/profile", {"profile": "../configs/fast.yaml"}).status == 404
    assert server.get("/status")["manifest"]["profile"] == "fast"
    assert server.request("POST", "/admin/profile", {"profile": None}).status == 200
    assert (server.get("/status")["manifest"]["profile"], server.model("bird")["description"]) == (None, None)


def test_with_keys_only_an_admin_edits_and_then_everything(tmp_path: Path) -> None:
    keys = {"BOSS": "boss-key-0123456789", "GUEST": "guest-key-0123456789"}
    manifest = f"server: {{api_keys: {{boss: {{env: BOSS, admin: true}}, guest: {{env: GUEST}}}}}}\n{MANIFEST}"
    with serving(tmp_path, manifest, env=keys) as server:
        boss, guest = ({"Authorization": f"Bearer {keys[name]}"} for name in ("BOSS", "GUEST"))
        program = {"section": "chat", "id": "x", "options": {"backend": "command", "command": ["sh", "{port}"]}}
        body = {"sha256": digest(server), "changes": [program]}
        for headers, status in (({}, 401), (guest, 403), (boss, 200)):
            assert server.request("POST", "/admin/manifest/save", body, headers).status == status
        told = server.request("GET", "/admin/manifest", None, boss)
        assert keys["BOSS"].encode() not in told.body
        assert "command" in file(server).read_text()
