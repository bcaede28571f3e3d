"""The command line as a person meets it: what it prints, what it refuses in one line, how it exits."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest

from localapi.cli.group import COMMANDS, command_named
from tests import forked
from tests.server import save, serving

ROOT = Path(__file__).parents[2]


def localapi(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return forked.run_text(*arguments, folder=folder, env={**os.environ, **(env or {})})


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        ((), {}, "CHAT_MODEL_PATH"),
        (("--manifest", "nope.yaml"), {}, "nope.yaml"),
        ((), {"PORT": "70000"}, "'70000'"),
        ((), {"PORT": "many"}, "'many'"),
        ((), {"ECHO_MODE": "perhaps"}, "ECHO_MODE"),
        (("--host", "no.such.host.invalid"), {"ECHO_MODE": "1"}, "no.such.host.invalid"),
        (("--profile", "nope"), {"ECHO_MODE": "1"}, "apple-silicon, cpu, dev, echo"),
    ],
)
def test_what_cannot_start_says_so_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], words: str
) -> None:
    done = localapi(tmp_path, "serve", *arguments, env=env)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_told_with_another_to_take(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = localapi(tmp_path, "--port", str(port), env={"ECHO_MODE": "1"})
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"localapi: Port {port} on 127.0.0.1 is in use.")
    assert line.endswith(f"choose another: localapi --port {port + 1}")


def test_a_server_whose_standard_streams_are_closed_serves(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "localapi", "--port", str(port)]
    server = subprocess.Popen(closed, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "ECHO_MODE": "1"})
    try:
        while server.poll() is None:
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
                break
    finally:
        server.terminate()
    assert server.wait() == 0


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("models", "--port", "-1"), ("say", "--port", "x", "hi")])
def test_a_port_that_is_none_is_a_wrong_command_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = localapi(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Invalid value for '--port'" in done.stderr


def test_a_terminal_that_knows_few_characters_gets_question_marks_for_the_others(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "chat: {parrot: {backend: echo, description: ✓}}")
    done = localapi(tmp_path, "check", env={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    assert ["chat.parrot.description", "?"] in [line.split()[:2] for line in done.stdout.splitlines()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
def test_output_that_finds_no_room_is_told_in_a_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "localapi", "schema"],
            check=False, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "localapi: the output is incomplete: No space left on device\n"


def test_a_server_that_is_told_to_read_its_manifest_while_it_starts_does_not_end(tmp_path: Path) -> None:
    code = """
import os, signal
from localapi.cli import group
imported = group.command_named
group.command_named = lambda name: os.kill(os.getpid(), signal.SIGHUP) or imported(name)
group.main()
"""
    told = subprocess.run(
        [sys.executable, "-c", code, "--help-all"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert told.returncode == 2  # a wrong command line, and no signal


def test_a_wrong_flag_is_a_wrong_command_line(tmp_path: Path) -> None:
    done = localapi(tmp_path, "--prot", "1")
    assert (done.returncode, "--port" in done.stderr) == (2, True)


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    with serving(tmp_path, None, env={"ECHO_MODE": "1", "CHAT_MODEL_ID": "mine"}) as server:
        assert [m["id"] for m in server.get("/v1/models")["data"]][:2] == ["mine", "local-audio"]
        server.wait_for("following")


def test_the_terminal_shows_address_models_and_files(tmp_path: Path) -> None:
    manifest = "chat: {bird: {backend: echo, aliases: [gpt-4o]}}\nspeech: {voice: {backend: auto}}"
    with serving(tmp_path, manifest) as server:
        server.wait_for(r"bird +chat +echo +unloaded +gpt-4o")
        server.wait_for(r"voice +speech +(espeak-ng|macos-say) ")
        server.wait_for(r"following models\.yaml")
        assert not [line for line in server.lines if "\x1b" in line]


def test_check_shows_where_each_value_came_from(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "chat:\n  bird:\n    backend: echo\n")
    done = localapi(tmp_path, "check", env={"CHAT_MODEL_PATH": "demo"})
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["chat.bird.backend", "echo", "models.yaml:3:14"] in rows
    assert ["chat.local-chat.path", "demo", "environment", "CHAT_MODEL_PATH"] in [
        [r[0], r[1], *r[-2:]] for r in rows if r[4:]
    ]
    assert "no server is running" in done.stdout


def test_check_names_every_mistake_with_its_place(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "chat:\n  a: {backend: eko}\n  b: {backend: echo, swap: hot}\nmodles: {}\n")
    done = localapi(tmp_path, "check")
    assert done.returncode == 1
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()[:3]] == [
        ["models.yaml:2:16", "chat.a.backend"],
        ["models.yaml:3:28", "chat.b.swap"],
        ["models.yaml:4:1", "modles"],
    ]


def test_check_says_what_a_save_would_change_on_a_running_server(tmp_path: Path) -> None:
    with serving(tmp_path, "chat: {a: {backend: echo}, b: {backend: echo}}") as server:
        port = ("--port", str(server.port))
        assert "serves this" in localapi(tmp_path, "check", *port).stdout
        draft = tmp_path / "draft.yaml"
        draft.write_text(
            "chat: {a: {backend: echo, aliases: [x]}, b: {backend: mlx-lm, path: demo}, c: {backend: echo}}"
        )
        assert "would change: +c ~b =a" in localapi(tmp_path, "check", "draft.yaml", *port).stdout


def test_schema_prints_the_schema_that_editors_use(tmp_path: Path) -> None:
    done = localapi(tmp_path, "schema")
    schema = json.loads(done.stdout)
    assert schema == json.loads((ROOT / "configs" / "models.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)


def test_every_shipped_profile_is_valid_over_the_shipped_manifest(tmp_path: Path) -> None:
    for profile in (ROOT / "configs").glob("*.yaml"):
        done = localapi(tmp_path, "check", str(ROOT / "models.yaml"), "--profile", profile.stem)
        assert done.returncode == 0, done.stderr


def test_the_shipped_manifest_serves_and_its_echo_answers(tmp_path: Path) -> None:
    with serving(tmp_path, None, "--manifest", str(ROOT / "models.yaml"), "--profile", "echo") as server:
        for model in ("local-chat", "gpt-4o-mini", "demo", "echo"):
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            reply = server.request("POST", "/v1/chat/completions", body).json()
            assert reply["choices"][0]["message"]["content"] == "hi"


def test_a_missing_engine_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    """The server runs without the package: a search path that hides it."""
    hidden = "import sys, importlib.util as u; find = u.find_spec; "
    hidden += "u.find_spec = lambda name, *rest: None if name == 'mlx_lm' else find(name, *rest); "
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(hidden)
    paths = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    with serving(tmp_path, "chat: {m: {backend: mlx-lm, path: demo}}", env={"PYTHONPATH": paths}) as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        reply = server.request("POST", "/v1/chat/completions", body)
    assert (reply.status, reply.headers["x-should-retry"]) == (503, "false")
    assert "pip install mlx-lm" in reply.json()["error"]["message"]


def test_a_command_that_does_not_exist_is_told_as_that_with_what_is_near(tmp_path: Path) -> None:
    done = localapi(tmp_path, "modls")
    assert done.returncode == 2
    assert done.stderr.endswith("Error: There is no command 'modls'; did you mean 'models'?\n")


@pytest.mark.parametrize("command", ["models", "chat", "plan", "check"])
def test_a_url_for_a_host_is_told_as_no_address(tmp_path: Path, command: str) -> None:
    save(tmp_path / "models.yaml", "chat: {parrot: {backend: echo}}")
    done = localapi(tmp_path, command, "--host", "http://127.0.0.1")
    assert "Traceback" not in done.stderr
    assert "http://[http://127.0.0.1]:" in done.stdout + done.stderr


def test_a_current_folder_that_is_gone_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    program = (
        f"import os, sys; os.rmdir(os.getcwd()); sys.path.insert(0, {str(ROOT)!r}); import localapi.cli.group as g"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.argv = ['localapi', 'check']; g.main()"],
        check=False, cwd=tmp_path / "here", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "localapi: the current folder no longer exists; change to another one\n"


def test_a_command_behind_its_options_is_told_where_it_goes(tmp_path: Path) -> None:
    done = localapi(tmp_path, "--port", "9", "models", "--json")
    assert done.returncode == 2
    assert "comes before its options: localapi models …" in done.stderr
    assert "unexpected extra argument (nonsense)" in localapi(tmp_path, "--port", "9", "nonsense").stderr


def test_help_lists_every_command_once(tmp_path: Path) -> None:
    lines = localapi(tmp_path, "--help").stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS] == [*COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_of_each_what_its_help_says(name: str) -> None:
    text = " ".join((command_named(name).help or "").split())
    assert text.startswith(COMMANDS[name].removesuffix(".").partition(",")[0])


def test_check_and_say_do_not_need_the_secrets_of_the_server(tmp_path: Path) -> None:
    text = "server: {api_keys: {x: {env: NOT_IN_THIS_SHELL}}}\nspeech: {s: {backend: echo}}"
    with serving(tmp_path, text, env={"NOT_IN_THIS_SHELL": "k" * 16}) as server:
        port, key = ("--port", str(server.port)), {"LOCALAPI_API_KEY": "k" * 16}
        checked = localapi(tmp_path, "check", *port, env=key)
        said = localapi(tmp_path, "say", "hello", "-o", "hello.wav", *port, env=key)
    assert checked.returncode == 0
    assert "models.yaml:1:30: server.api_keys.x.env: " in checked.stderr
    assert (said.returncode, said.stderr) == (0, "")
    assert (tmp_path / "hello.wav").stat().st_size > 1000
