"""A model that cannot be loaded, on a real server: its entry stays as it was, and every other edit is applied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from localapi.backends.model_path import DEMO_FOLDER
from tests import forked
from tests.server import Server, save, serving, until

FOLDER = "  local-chat: {backend: mlx-lm, path: demo, defaults: {temperature: 0}}\n"
REPOSITORY = "  local-chat: {backend: mlx-lm, path: somebody/a-model, aliases: [gpt]}\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Without a network, and with a model that is loaded."""
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    with serving(tmp_path, f"chat:\n{FOLDER}", env=offline) as server:
        assert says_hello(server)
        yield server


def says_hello(server: Server, model: str = "local-chat") -> bool:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 3}
    return server.request("POST", "/v1/chat/completions", body).status == 200


def test_a_repository_that_cannot_be_had_keeps_no_other_edit_away(server: Server, tmp_path: Path) -> None:
    pid = server.model("local-chat")["place"]["pid"]

    save(tmp_path / "models.yaml", f"chat:\n{REPOSITORY}  other: {{backend: echo}}\n")

    server.wait_for(r"reloaded revision 2: \+other =local-chat")
    assert all(says_hello(server, name) for name in ("local-chat", "gpt", "other"))
    status = server.status()
    model = next(each for each in status["models"] if each["id"] == "local-chat")
    assert (model["place"]["pid"], model["path"], model["state"]) == (pid, "demo", "ready")
    assert (model["swap"]["state"], model["swap"]["path"]) == ("failed", "somebody/a-model")
    assert model["swap"]["error"] == status["last_attempt"]["not_loaded"]["local-chat"]
    assert (status["last_attempt"]["ok"], status["last_attempt"]["problems"]) == (True, [])
    assert any("local-chat" in warning and model["swap"]["error"] in warning for warning in status["warnings"])
    assert server.request("GET", "/health/ready").status == 200


def test_the_command_line_tells_what_did_not_load_and_why(server: Server, tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", f"chat:\n{REPOSITORY}")
    error = server.reload()["not_loaded"]["local-chat"]

    models, plan = (localapi(server, tmp_path, *words) for words in (["models"], ["plan", "--json"]))

    assert " ".join(error.split()) in " ".join(models.split())
    [change] = json.loads(plan)["changes"]
    assert (change["id"], change["does"], change["error"]) == ("local-chat", "did not load", error)


def localapi(server: Server, folder: Path, *words: str) -> str:
    done = forked.run_text(*words, "--port", str(server.port), folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_mistake_in_the_file_still_refuses_all_of_it(server: Server, tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", f"chat:\n{REPOSITORY}  other: {{bakend: echo}}\n")
    server.wait_for("manifest rejected")

    assert server.model("local-chat")["swap"] is None
    assert server.status()["revision"] == 1


def test_what_did_not_load_is_loaded_when_it_can_be(server: Server, tmp_path: Path) -> None:
    model = shutil.copytree(DEMO_FOLDER, tmp_path / "model")
    weights = model / "model.safetensors"
    weights.rename(tmp_path / "weights")
    weights.write_bytes(b"no weights")
    save(tmp_path / "models.yaml", "chat:\n  local-chat: {backend: mlx-lm, path: ./model}\n")
    server.wait_for("local-chat: not replaced")
    assert server.model("local-chat")["path"] == "demo"

    (tmp_path / "weights").replace(weights)

    until(lambda: server.model("local-chat")["path"] == "./model")
    assert (server.model("local-chat")["swap"], server.status()["warnings"]) == (None, [])
    assert says_hello(server)
