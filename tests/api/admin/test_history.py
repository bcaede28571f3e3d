"""`/admin/history`: what models and keys were used for, over restarts, unless the manifest says not to keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.server import Server, save, serving

KEYS = {"BOSS": "boss-key-0123456789", "GUEST": "guest-key-0123456789"}
MANIFEST = """\
server:
  api_keys: {boss: {env: BOSS, admin: true}, guest: {env: GUEST}}
chat: {bird: {backend: echo}}
"""


def ask(server: Server, method: str, path: str, body: Any = None, key: str = "BOSS") -> Any:
    reply = server.request(method, path, body, {"Authorization": f"Bearer {KEYS[key]}"})
    return reply.json() if reply.status == 200 else reply.status


def test_usage_is_kept_over_a_restart_until_the_manifest_says_otherwise(tmp_path: Path) -> None:
    asked = {"model": "bird", "messages": [{"role": "user", "content": "one two three"}]}
    env = {**KEYS, "XDG_STATE_HOME": str(tmp_path / "state")}
    for _ in range(2):
        with serving(tmp_path, MANIFEST, env=env) as server:
            ask(server, "POST", "/v1/chat/completions", asked, key="GUEST")
    with serving(tmp_path, MANIFEST, env=env) as server:
        ask(server, "POST", "/v1/chat/completions", asked, key="GUEST")
        told = ask(server, "GET", "/admin/history")
        for table, name in (("models", "bird"), ("keys", "guest")):
            amounts = [each[table].get(name, {}) for each in told["days"]]
            assert sum(each.get("requests", 0) for each in amounts) == 3
            assert sum(each.get("completion_tokens", 0) for each in amounts) == 9
        assert told["hours"][-1]["start"] % 3600 == 0
        assert ask(server, "GET", "/admin/history", key="GUEST") == 403
        (file,) = (tmp_path / "state/localapi/history").glob("*.json")
        assert told["file"] == str(file)
        assert b"one two three" not in file.read_bytes()
        save(tmp_path / "models.yaml", MANIFEST.replace("server:", "server:\n  history: false"))
        server.wait_for("applied|revision 2")
        assert ask(server, "GET", "/admin/history") == {"enabled": False, "file": str(file), "hours": [], "days": []}


def test_a_file_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    env = {**KEYS, "XDG_STATE_HOME": str(tmp_path / "state")}
    with serving(tmp_path, MANIFEST, env=env) as server:
        ask(server, "POST", "/v1/chat/completions", {"model": "bird", "messages": [{"role": "user", "content": "hi"}]})
    (file,) = (tmp_path / "state/localapi/history").glob("*.json")
    file.write_bytes(b"{ not json")
    with serving(tmp_path, MANIFEST, env=env) as server:
        server.wait_for("unreadable and starts anew")
        assert ask(server, "GET", "/admin/history")["days"] == []
    assert file.with_suffix(".broken").read_bytes() == b"{ not json"
