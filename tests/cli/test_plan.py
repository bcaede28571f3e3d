"""`localapi plan` tells what a save does, and a save does what it told."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.cli.conftest import Run
from tests.server import save, serving

BEFORE = """\
server: {drain_seconds: 20}
chat:
  same: {backend: echo}
  offered: {backend: echo}
  warm: {backend: echo}
  cold: {backend: echo}
  idle: {backend: echo}
  gone: {backend: echo}
"""
AFTER = """\
server: {drain_seconds: 10}
chat:
  same: {backend: echo}
  offered: {backend: echo, aliases: [x], keep_alive: 1h}
  warm: {backend: mlx-lm, path: demo}
  cold: {backend: mlx-lm, path: demo, swap: cold}
  idle: {backend: mlx-lm, path: demo}
  new: {backend: echo}
"""


def changes(told: Any) -> dict[str, tuple[str, list[str]]]:
    return {each["id"]: (each["does"], each["keys"]) for each in told["changes"]}


def test_each_entry_is_told_with_the_keys_that_differ(localapi: Run, folder: Path) -> None:
    with serving(folder, BEFORE) as server:
        port = str(server.port)
        for name in ("warm", "cold"):
            assert server.request("POST", f"/admin/models/{name}/load").status == 200
        nothing = localapi("plan", "--exit-code", PORT=port)
        assert (nothing.returncode, nothing.stdout) == (
            0, f"the server on {server.url} already serves this; nothing to do\n",
        )  # fmt: skip
        (folder / "draft.yaml").write_text(AFTER)
        told = json.loads(localapi("plan", "draft.yaml", "--json", PORT=port).stdout)
        assert changes(told) == {
            "new": ("added", []),
            "warm": ("warm", ["backend"]),
            "cold": ("cold", ["backend", "swap"]),
            "idle": ("not loaded", ["backend"]),
            "offered": ("in place", ["aliases", "keep_alive"]),
            "gone": ("removed", []),
        }
        assert told["server"] == ["drain_seconds"]
        done = localapi("plan", "draft.yaml", "--exit-code", PORT=port)
        assert done.returncode == 3
        lines = done.stdout.splitlines()
        assert (
            "~  chat.warm     loads beside the old one, which answers until the new one is ready (warm): backend "
            "(draft.yaml:5)" in lines
        )
        assert lines[-1] == "=  server  changes in place: drain_seconds"
        save(folder / "models.yaml", AFTER)
        attempt = server.reload() and server.status()["last_attempt"]
        assert attempt["ok"]
        assert localapi("plan", "--exit-code", PORT=port).returncode == 0


def test_requests_that_run_are_told(localapi: Run, folder: Path) -> None:
    words = " ".join(["word"] * 100_000)
    body = {"model": "gone", "stream": True, "messages": [{"role": "user", "content": words}]}
    with serving(folder, BEFORE) as server:
        stream = server.client(max_retries=0).chat.completions.create(**body)
        next(iter(stream))
        (folder / "draft.yaml").write_text(BEFORE.replace("  gone: {backend: echo}\n", ""))
        done = localapi("plan", "draft.yaml", PORT=str(server.port))
        stream.close()
    assert done.stdout == "-  chat.gone  is removed; running requests: 1, they finish first\n"


def test_a_server_that_follows_another_manifest_is_told_as_that(localapi: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "models.yaml").write_text(BEFORE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with serving(elsewhere, AFTER) as server:
        port = str(server.port)
        for command in ("plan", "check"):
            done = localapi(command, PORT=port)
            told = f"the server on {server.url} follows {elsewhere / 'models.yaml'}, not {folder / 'models.yaml'}\n"
            assert (done.returncode, done.stderr) == (0, told)
            assert localapi(command, "models.yaml", PORT=port).stderr == ""  # a draft is in no place


def test_without_a_server_all_is_new(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(AFTER)
    done = localapi("plan", "--exit-code")
    assert done.returncode == 3
    assert done.stderr == "no server is running on http://127.0.0.1:9, so everything is new\n"
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["+", f"chat.{name}"] for name in ("same", "offered", "warm", "cold", "idle", "new")
    ]
    assert json.loads(localapi("plan", "--json").stdout)["compared_with"] is None


def test_a_mistake_is_told_with_its_place(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text("chat: {a: {backend: eko}}\n")
    done = localapi("plan")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("models.yaml:1:21: chat.a.backend: unknown backend 'eko'")


def test_a_server_with_keys_wants_one_and_its_secret_is_told_nowhere(localapi: Run, folder: Path) -> None:
    keys = "server: {api_keys: {me: {env: MY_KEY, admin: true}}}\n"
    secret = {"MY_KEY": "open-sesame-open-sesame"}
    with serving(folder, keys + "chat: {a: {backend: echo}}\n", env=secret) as server:
        port = str(server.port)
        refused = localapi("plan", PORT=port, **secret)
        assert (refused.returncode, "LOCALAPI_API_KEY" in refused.stderr) == (1, True)
        given = {"PORT": port, "LOCALAPI_API_KEY": secret["MY_KEY"], **secret}
        assert "nothing to do" in localapi("plan", **given).stdout
        (folder / "draft.yaml").write_text(
            keys.replace("admin: true", "admin: true, models: [a]") + "chat: {a: {backend: echo}}\n"
        )
        assert json.loads(localapi("plan", "draft.yaml", "--json", **given).stdout)["server"] == ["api_keys"]
        elsewhere = localapi("plan", "--exit-code", PORT=port, LOCALAPI_API_KEY=secret["MY_KEY"])
        assert elsewhere.returncode == 0
        assert elsewhere.stderr.startswith("missing here, but needed by the server: models.yaml:1:")
        key = {"Authorization": f"Bearer {secret['MY_KEY']}"}
        assert secret["MY_KEY"].encode() not in server.request("GET", "/status", headers=key).body


def test_another_program_on_the_port_is_told(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(BEFORE)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done, checked = localapi("plan", PORT=port), localapi("check", PORT=port)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == f"localapi: the server on http://127.0.0.1:{port} did not respond within 2 s"
    assert checked.returncode == 0
    assert checked.stdout.splitlines()[-1] == (
        f"valid; it cannot be compared with a server: the server on http://127.0.0.1:{port} did not respond within 2 s"
    )
