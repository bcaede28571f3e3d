"""API keys on a real server: who gets in, what each key opens, how keys change, and that no secret is ever told."""

from __future__ import annotations

import ast
import contextlib
import http.client
import inspect
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from localapi.manifest import keys
from tests import forked
from tests.server import Reply, Server, save, serving

ROOT = Path(__file__).parents[2]
ADMIN, GUEST = "sk-admin-0123456789abcdef", "sk-guest-0123456789abcdef"
MANIFEST = """
server:
  log_level: debug
  api_keys:
    operator: {env: OPERATOR_KEY, admin: true}
    guest: {file: guest.key, models: [parrot]}
chat:
  bird: {backend: echo, aliases: [parrot]}
  secret-bird: {backend: echo}
speech:
  tone: {backend: echo}
"""
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    (folder / "guest.key").write_text(GUEST + "\n")
    with serving(folder, MANIFEST, env={"OPERATOR_KEY": ADMIN}) as server:
        yield server
        told = "\n".join(server.lines)
    assert ADMIN not in told
    assert GUEST not in told


def ask(server: Server, method: str, path: str, key: str | None = None, body: Any = None) -> Reply:
    return server.request(method, path, body, {"Authorization": f"Bearer {key}"} if key else {})


def test_workers_get_the_environment_without_the_keys(tmp_path: Path) -> None:
    manifest = """
server: {api_keys: {one: {env: FIRST_KEY, admin: true}}}
chat: {demo: {backend: mlx-lm, path: demo}}
"""
    variables = {"FIRST_KEY": ADMIN, "SECOND_KEY": GUEST, "LOCALAPI_API_KEY": ADMIN, "HF_HOME": str(tmp_path)}
    with serving(tmp_path, manifest, env=variables) as server:
        pid = ask(server, "POST", "/admin/models/demo/load", ADMIN).json()["place"]["pid"]
        told = psutil.Process(pid).environ()
        assert not {"FIRST_KEY", "LOCALAPI_API_KEY"} & told.keys()
        assert ADMIN not in told.values()
        assert (told["HF_HOME"], told["SECOND_KEY"]) == (str(tmp_path), GUEST)
        # Another key, and at the same time another model: its worker starts before the manifest is applied.
        changed = manifest.replace("FIRST", "SECOND").replace("path: demo", "path: demo, context_length: 100")
        save(tmp_path / "models.yaml", changed)
        server.wait_for("reloaded revision 2")
        pid = ask(server, "POST", "/admin/models/demo/load", GUEST).json()["place"]["pid"]
        assert not {"FIRST_KEY", "SECOND_KEY"} & psutil.Process(pid).environ().keys()


def test_no_key_is_401_everywhere_but_at_health(server: Server) -> None:
    assert server.request("GET", "/health").status == 200
    for method, path in (
        ("GET", "/v1/models"), ("POST", CHAT), ("GET", "/status"), ("POST", "/admin/reload"), ("GET", "/health/ready"),
        ("GET", "/nothing"), ("PUT", "/v1/models"), ("GET", "//status"),
    ):  # fmt: skip
        reply = server.request(method, path)
        assert (reply.status, reply.json()["error"]["code"]) == (401, "invalid_api_key"), path
        assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer sk-wrong-0123456789abcdef"},
        {"Authorization": f"Basic {ADMIN}"},
        {"Authorization": f"Bearer {ADMIN[:-1]}"},
        {"Authorization": f"Bearer {ADMIN}x"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {ADMIN} {ADMIN}"},
        {"Authorization": "Bearer wrong-0123456789", "x-api-key": ADMIN},
        {"x-api-key": "é" * 20},
        {"x-api-key": ADMIN.upper()},
        {"Authorization": "Bearer " + "x" * 10_000},
    ],
)
def test_a_wrong_key_is_401(server: Server, headers: dict[str, str]) -> None:
    reply = server.request("GET", "/v1/models", headers={k: v.encode("latin-1") for k, v in headers.items()})  # type: ignore[misc]
    assert reply.status == 401
    assert ADMIN not in reply.body.decode()


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {ADMIN}"}, {"authorization": f"bearer  {ADMIN}"}, {"x-api-key": ADMIN}],
)
def test_a_key_comes_as_openai_or_as_anthropic_send_it(server: Server, headers: dict[str, str]) -> None:
    assert server.request("GET", "/v1/models", headers=headers).status == 200


def test_the_official_client_gets_in_with_its_key_only(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=ADMIN)
    assert [m.id for m in client.models.list()] == ["bird", "secret-bird", "tone"]
    with pytest.raises(openai.AuthenticationError):
        server.client().models.list()


def test_a_key_with_models_sees_and_uses_no_others(server: Server) -> None:
    listed = ask(server, "GET", "/v1/models", GUEST).json()["data"]
    assert [model["id"] for model in listed] == ["bird"]
    assert ask(server, "POST", CHAT, GUEST, {"model": "parrot", **ASK}).status == 200
    for name in ("secret-bird", "no-such-model"):
        reply = ask(server, "POST", CHAT, GUEST, {"model": name, **ASK})
        assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")
        assert reply.json()["error"]["message"] == (
            f"The model {name!r} does not exist. The manifest has these chat models: bird."
        )
    assert ask(server, "GET", "/v1/models/secret-bird", GUEST).status == 404
    assert ask(server, "GET", "/v1/audio/models", GUEST).json()["models"] == []
    assert ask(server, "GET", "/v1/audio/voices", GUEST).json()["voices"] == []
    for path, body in {
        "/v1/completions": {"prompt": "x", "stream": True},
        "/v1/tokenize": {"text": "x"},
        "/v1/detokenize": {"tokens": [1]},
    }.items():
        assert ask(server, "POST", path, GUEST, {"model": "secret-bird", **body}).status == 404
    assert ask(server, "POST", "/v1/audio/speech", GUEST, {"model": "tone", "input": "x"}).status == 404
    assert ask(server, "GET", "/v1/audio/voices?model=tone", GUEST).status == 404


def test_no_error_names_a_model_that_the_key_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "guest.key").write_text(GUEST)
    more = "{memory_budget: 150MB, api_keys: {guest: {file: guest.key, models: [a]}, op: {env: OPERATOR_KEY}}}"
    demo = "backend: mlx-lm, path: demo"
    manifest = f"server: {more}\nchat: {{a: {{{demo}}}, secret: {{{demo}, pin: true}}, more: {{{demo}, pin: true}}}}"
    with serving(tmp_path, manifest, env={"OPERATOR_KEY": ADMIN}) as server:
        server.wait_for("more: not loaded: .* secret .* must stay")
        assert ask(server, "GET", "/health/ready", GUEST).json() == {"status": "failed", "models": [], "errors": {}}
        assert "secret" in ask(server, "GET", "/health/ready", ADMIN).json()["errors"]["more"]
        for stream in (False, True):
            told = ask(server, "POST", CHAT, GUEST, {**ASK, "model": "a", "stream": stream}).body.decode()
            assert re.search(r"a needs about \d+ MB, memory_budget is 150 MB, and \d+ MB of others must stay\.", told)
        assert "and secret " in ask(server, "POST", CHAT, ADMIN, {"model": "a", **ASK}).json()["error"]["message"]


def test_the_admin_right_opens_status_and_reload(server: Server) -> None:
    for method, path in (("GET", "/status"), ("POST", "/admin/reload"), ("HEAD", "/status"), ("GET", "//status")):
        assert ask(server, method, path, GUEST).status == 403
        assert ask(server, method, path, ADMIN).status == 200


def test_no_reply_tells_a_secret(server: Server) -> None:
    for method, path in (("GET", "/status"), ("POST", "/admin/reload"), ("GET", "/v1/models"), ("GET", "/nothing")):
        told = ask(server, method, path, ADMIN)
        assert ADMIN not in told.body.decode() + str(told.headers)
        assert GUEST not in told.body.decode()


def test_the_log_says_which_key_asked(server: Server) -> None:
    ask(server, "POST", CHAT, GUEST, {"model": "bird", **ASK})
    server.wait_for(r"bird: 1 tokens.*\(req_\w+\) \[key guest\]$")
    ask(server, "POST", CHAT, ADMIN, {"model": "missing", **ASK})
    server.wait_for(r"req_\w+: POST /v1/chat/completions: 404: .*'missing'.* \[key operator\]$")


def localapi(folder: Path, *words: str, key: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OPERATOR_KEY": ADMIN, "LOCALAPI_API_KEY": key}
    return forked.run_text(*words, folder=folder, env=env)


def test_the_own_commands_send_the_key_of_the_environment(server: Server, folder: Path) -> None:
    port = ("--port", str(server.port))
    told = {key: localapi(folder, "check", *port, key=key).stdout for key in ("", GUEST, ADMIN)}
    assert "serves this" in told[ADMIN]
    assert "LOCALAPI_API_KEY" in told[""]
    assert "LOCALAPI_API_KEY" in told[GUEST]
    assert not any(secret in text for secret in (ADMIN, GUEST) for text in told.values())
    assert localapi(folder, "say", "x", "-o", "said.wav", *port, key=ADMIN).returncode == 0
    refused = localapi(folder, "say", "x", "-o", "said.wav", *port)
    assert (refused.returncode, "LOCALAPI_API_KEY" in refused.stderr) == (1, True)


@contextlib.contextmanager
def listening(server: Server, key: str | None = None) -> Iterator[http.client.HTTPResponse]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", "/status/events", headers={"Authorization": f"Bearer {key}"} if key else {})
        yield connection.getresponse()


def test_who_listens_when_the_key_is_taken_away_hears_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(GUEST)
    keys = "server: {api_keys: {x: {file: key, admin: true}}}\nchat: {bird: {backend: echo}}"
    with serving(tmp_path, "chat: {bird: {backend: echo}}") as server, listening(server) as before:
        save(tmp_path / "models.yaml", keys)
        assert b'"revision":2' not in before.read()
        with listening(server, GUEST) as first, listening(server, GUEST) as second:
            save(tmp_path / "key", ADMIN)
            assert b'"revision":3' not in first.read() + second.read()
        with listening(server, ADMIN) as after:
            save(tmp_path / "models.yaml", keys + "\nspeech: {tone: {backend: echo}}")
            assert any(b'"revision":4' in line for line in after)


def test_keys_change_while_the_server_runs(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(GUEST)
    with serving(tmp_path, "chat: {bird: {backend: echo}}") as server:
        assert server.request("GET", "/v1/models").status == 200
        save(tmp_path / "models.yaml", "server: {api_keys: {x: {file: key}}}\nchat: {bird: {backend: echo}}")
        server.wait_for("reloaded revision 2: server")
        assert server.request("GET", "/v1/models").status == 401
        assert ask(server, "GET", "/v1/models", GUEST).status == 200

        save(tmp_path / "key", ADMIN)
        server.wait_for("reloaded revision 3: server")
        assert ask(server, "GET", "/v1/models", GUEST).status == 401
        assert ask(server, "GET", "/v1/models", ADMIN).status == 200

        save(tmp_path / "key", "tooshort")
        server.wait_for(r"manifest rejected: models\.yaml:1:31: server\.api_keys\.x\.file: .*8 characters")
        assert ask(server, "GET", "/v1/models", ADMIN).status == 200
        assert not [line for line in server.lines if "tooshort" in line]


def test_every_key_is_compared_in_constant_time() -> None:
    """By structure: the comparison is hmac's, of digests, and no key ends the loop."""
    tree = ast.parse(inspect.getsource(keys.holder))
    assert "compare_digest" in ast.unparse(tree)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Break | ast.Eq | ast.In)]
    assert len([node for node in ast.walk(tree) if isinstance(node, ast.Return)]) == 1
    known = tuple(keys.Key(name, keys.digest(name)) for name in "abc")
    assert [key and key.name for key in (keys.holder(known, name) for name in "abcd")] == ["a", "b", "c", None]
