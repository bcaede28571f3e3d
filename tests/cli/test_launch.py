"""`localapi launch`: which model an agent gets, what the agent is told, and how it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from localapi.cli.agents import AGENTS, Target
from localapi.cli.asking import NoChatModel
from localapi.cli.launch import Unsuitable, choose, lines
from tests.cli.conftest import Run
from tests.server import Server, serving

KEY = "a-key-of-this-test"
MANIFEST = """
server: {api_keys: {me: {env: THE_KEY, admin: true}}}
chat:
  parrot: {backend: echo}
  demo: {backend: mlx-lm, path: demo, aliases: [gpt]}
speech:
  tone: {backend: echo}
"""
STAND_IN = """#!{python}
import json, os, pathlib, sys
files = dict()
for value in [*sys.argv, *os.environ.values()]:
    path = pathlib.Path(value)
    if "localapi-" in value and path.exists():
        for each in path.iterdir() if path.is_dir() else [path]:
            if each.is_file():
                files[str(each)] = each.read_text()
print(json.dumps(dict(arguments=sys.argv[1:], environment=dict(os.environ), files=files)), flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
sys.exit(3)
"""


def model(
    name: str, *, state: str = "unloaded", tools: bool | None = None, context: int | None = None
) -> dict[str, Any]:
    can = {"tools": tools}
    return {"id": name, "aliases": [], "kind": "chat", "state": state, "capabilities": can, "context_length": context}


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        ([model("a"), model("b")], "a"),
        ([model("a", tools=False), model("b")], "b"),
        ([model("a"), model("b", tools=True)], "b"),
        ([model("a", tools=True), model("b", state="ready")], "b"),
        ([model("a", tools=True, state="not_downloaded"), model("b")], "b"),
        ([model("a", context=40_000), model("b", context=100_000)], "b"),
        ([model("a", state="ready", tools=True, context=2048), model("b")], "b"),
        ([model("a", context=2048)], "a"),
        ([{"id": "s", "kind": "speech"}, model("a")], "a"),
    ],
)
def test_the_most_suitable_model_is_chosen(models: list[Mapping[str, Any]], chosen: str) -> None:
    assert choose(models, AGENTS["claude"])["id"] == chosen


def test_an_agent_without_tools_takes_a_model_without_them() -> None:
    assert choose([model("a", tools=False)], AGENTS["aider"])["id"] == "a"
    with pytest.raises(Unsuitable):
        choose([model("a", tools=False)], AGENTS["codex"])
    with pytest.raises(NoChatModel):
        choose([], AGENTS["codex"])


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("context_length", [None, 40_960])
def test_every_agent_is_told_the_address_and_the_model(name: str, context_length: int | None) -> None:
    made = AGENTS[name].set_up(Target("http://127.0.0.1:1234", "org/na'me", context_length))
    told = " ".join([*made.variables.values(), *made.arguments, *made.files.values()])
    assert "http://127.0.0.1:1234" in told
    assert "org/na'me" in told
    assert made.key_variables


@pytest.mark.parametrize("name", AGENTS)
def test_the_printed_lines_are_ones_that_a_shell_takes(name: str, tmp_path: Path) -> None:
    made = AGENTS[name].set_up(Target("http://127.0.0.1:1234", "org/na'me", 40_960))
    program = tmp_path / name
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOCALAPI_API_KEY": KEY, "TMPDIR": str(tmp_path)}
    script = "\n".join(lines(AGENTS[name], made, ["two words", "$HOME"], has_key=True))
    assert KEY not in script
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert told["arguments"][len(made.arguments) :] == ["two words", "$HOME"]
    assert len(told["arguments"]) == len(made.arguments) + 2
    assert {told["environment"][each] for each in made.key_variables} == {KEY}
    plain = {each: value for each, value in made.variables.items() if "{folder}" not in value}
    assert {each: told["environment"][each] for each in plain} == plain


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("launch"), MANIFEST, env={"THE_KEY": KEY}) as server:
        yield server


@pytest.fixture
def tools(tmp_path: Path, environment: dict[str, str]) -> Path:
    """Folder with a stand-in for each agent, which prints what it was told; the first in PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in AGENTS:
        (tools / name).write_text(STAND_IN.format(python=sys.executable))
        (tools / name).chmod(0o755)
    environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    environment["LOCALAPI_API_KEY"] = KEY
    return tools


@pytest.mark.usefixtures("tools")
def test_an_agent_runs_with_its_arguments_and_its_status_is_passed_on(localapi: Run, server: Server) -> None:
    done = localapi(
        "launch", "claude", "--model", "gpt", "--", "-p", "--print", PORT=str(server.port), ANTHROPIC_API_KEY="x"
    )
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert told["arguments"] == ["-p", "--print"]
    assert told["environment"]["ANTHROPIC_BASE_URL"] == f"http://127.0.0.1:{server.port}"
    assert told["environment"]["ANTHROPIC_MODEL"] == "demo"
    assert told["environment"]["ANTHROPIC_AUTH_TOKEN"] == KEY
    assert "ANTHROPIC_API_KEY" not in told["environment"]
    assert KEY not in done.stderr
    assert "demo" in done.stderr  # its context is too small for Claude Code


@pytest.mark.usefixtures("tools")
def test_a_configuration_is_in_a_temporary_folder_that_is_removed(localapi: Run, server: Server) -> None:
    told = json.loads(localapi("launch", "cn", PORT=str(server.port)).stdout)
    [(path, text)] = told["files"].items()
    assert json.loads(text)["models"][0]["model"] == "demo"
    assert KEY not in text
    assert not Path(path).parent.exists()


@pytest.mark.usefixtures("tools")
def test_without_a_server_a_temporary_one_is_started(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text("chat: {parrot: {backend: echo}}")
    done = localapi("launch", "llm")
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    [port] = {json.loads(text)[0]["api_base"] for path, text in told["files"].items() if path.endswith(".yaml")}
    assert not port.startswith("http://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("claude", "--model", "nobody"), "nobody"),
        (("claude", "--model", "tone"), "speech"),
        (("claude", "--model", "parrot"), "demo"),
        (("claude", "--port", "1"), "http://127.0.0.1:1"),
    ],
)
@pytest.mark.usefixtures("tools")
def test_a_model_that_does_not_suit_is_one_line(
    localapi: Run, server: Server, arguments: tuple[str, ...], words: str
) -> None:
    done = localapi("launch", *arguments, PORT=str(server.port))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert words in line


def test_a_tool_that_is_not_installed_is_one_line_with_its_install_command(localapi: Run, server: Server) -> None:
    done = localapi("launch", "goose", PORT=str(server.port), LOCALAPI_API_KEY=KEY, PATH="/nowhere")
    [line] = done.stderr.splitlines()
    assert (done.returncode, AGENTS["goose"].install in line) == (1, True)


def test_print_starts_nothing_and_shows_no_key(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(MANIFEST)
    done = localapi("launch", "claude", "--print", LOCALAPI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout
    assert "export ANTHROPIC_MODEL=demo" in done.stdout.splitlines()


def test_a_signal_reaches_the_agent(tools: Path, environment: dict[str, str], server: Server, folder: Path) -> None:
    environment["PORT"] = str(server.port)
    process = subprocess.Popen(
        [sys.executable, "-m", "localapi", "launch", "codex", "--", "wait"],
        cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["environment"]["PATH"].startswith(str(tools))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
