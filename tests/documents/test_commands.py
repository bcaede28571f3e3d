"""Lines for the shell are ones that the programs take; those of localapi that end by themselves are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import localapi
from localapi.cli.group import COMMANDS, command_named
from tests import forked
from tests.documents.conftest import NODE_PACKAGES, PYTHON_PACKAGES
from tests.documents.pages import PAGES, ROOT, Block, blocks, lines_of_shell, page
from tests.documents.test_tables import variables_of_the_code
from tests.server import Server, serving

ELSEWHERE = {"search", "serve", "install", "pull", "doctor", "service", "transcribe"}
"""Commands that have tests of their own; of their lines only the options are checked."""
LOCALAPI = re.compile(
    r'(?:echo "(?P<said>[^"]*)" \| )?(?P<variables>(?:\w+=\S+ )*)'
    r"(?:uv run |uvx --from \S+ )?localapi(?: (?P<words>.*))?$"
)

GET_UV = "python3 -m pip install -q --target .uv uv"
"""Works for every Python with pip, also for one that its system manages (PEP 668)."""
COMMAND_LINES = [line for line in dict.fromkeys(lines_of_shell()) if LOCALAPI.match(line)]


def test_the_two_commands_are_there_and_ci_runs_the_second() -> None:
    assert f"{GET_UV} && .uv/bin/uv run localapi" in lines_of_shell()
    assert f"{GET_UV} && .uv/bin/uv run --group test pytest" in lines_of_shell()
    ci = (ROOT / ".ci" / "run").read_text()
    assert GET_UV in ci
    assert "uv run --group test pytest" in ci


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_each_command_line_is_one_that_the_program_takes(line: str, home: Path, server: Server) -> None:
    found = LOCALAPI.match(line)
    assert found
    assert {word.partition("=")[0] for word in found["variables"].split()} <= variables_of_the_code()
    words = shlex.split((found["words"] or "").partition(">")[0])
    if words in (["--help"], ["--version"]):
        return  # tests/test_package.py
    name, rest = (words[0], words[1:]) if words and words[0] in COMMANDS else ("serve", words)
    context = command_named(name).make_context(name, list(rest))  # raises on a wrong option
    endless = "--watch" in rest or (name == "chat" and context.params["question"] is None and found["said"] is None)
    if name in ELSEWHERE or endless:
        return
    env = {
        **os.environ,
        "PORT": str(server.port),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = forked.run_text(name, *rest, folder=home, env=env, typed=found["said"] or "")
    assert done.returncode == 0 or (done.returncode == 3 and "--exit-code" in rest), done.stderr
    written = home / rest[rest.index("-o") + 1] if "-o" in rest else None
    assert written.stat().st_size > 0 if written else done.stdout or "played" in done.stderr


def test_the_page_of_the_command_line_shows_every_command() -> None:
    text = page("command-line.md").section("Command line")
    assert {name for name in COMMANDS if f"uv run localapi {name}" in text} == set(COMMANDS)


def test_the_line_that_serves_a_profile_serves_it() -> None:
    profile = "--profile echo"
    assert any(profile in line for line in COMMAND_LINES)
    with serving(ROOT, None, *profile.split()) as server:
        models = server.get("/v1/models")["data"]
    assert {model["backend"] for model in models} == {"echo"}
    assert "demo" in {model["id"] for model in models}


def test_the_line_with_a_variable_needs_no_manifest(tmp_path: Path) -> None:
    assert "CHAT_MODEL_PATH=demo uv run localapi" in COMMAND_LINES
    with serving(tmp_path, env={"CHAT_MODEL_PATH": "demo"}) as server:
        question = [{"role": "user", "content": "Count to five."}]
        body = {"model": "local-chat", "messages": question, "temperature": 0}
        reply = server.request("POST", "/v1/chat/completions", body)
    assert reply.json()["choices"][0]["message"]["content"] == "1 2 3 4 5"


def starting(start: str) -> list[str]:
    """The lines for the shell that begin so, each once."""
    return [line for line in dict.fromkeys(lines_of_shell()) if line.startswith(start)]


@pytest.mark.parametrize("line", starting("uv run --group test pytest "))
def test_each_line_of_tests_names_tests(line: str) -> None:
    words = shlex.split(line.removeprefix("uv run --group test pytest "))
    if words[0] == "-m":
        markers = (ROOT / "pyproject.toml").read_text()
        assert all(f'"{name}: ' in markers for name in words[1].split(" or "))
        words = words[2:]
    assert all((ROOT / word).exists() for word in words if not word.startswith("-"))
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f'addoption("{option}"' in (ROOT / "tests" / "conftest.py").read_text()


@pytest.mark.parametrize("line", starting("uv run --group test python "))
def test_each_benchmark_knows_its_options(line: str) -> None:
    words = shlex.split(line.removeprefix("uv run --group test python "))
    done = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[\w-]+", done.stdout))


def test_the_wheel_is_named_as_it_is_built() -> None:
    named = {found for page in PAGES for found in re.findall(r"localapi-([\w.]+)-py3-none-any\.whl", page.text)}
    assert named == {localapi.__version__}


def test_what_is_installed_for_clients_is_what_the_tests_install() -> None:
    node = {word for line in starting("npm install ") for word in line.split()[2:]}
    assert node <= set(NODE_PACKAGES)
    python = {word for line in starting("pip install ") if "&&" not in line for word in line.split()[2:]}
    assert python <= {need.partition("==")[0] for need in PYTHON_PACKAGES.values()} | {"openai"}


def test_each_check_that_people_run_is_one_that_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    lines = starting("uv run --group lint ")
    assert len(lines) >= 3
    assert [line for line in lines if line not in ci] == []


def test_no_line_for_the_shell_goes_untested() -> None:
    tested = (
        "curl ",
        "uv tool install dist/",
        GET_UV,
        "uv run --group test ",
        "uv run --group lint ",
        "npm install ",
        "pip install ",
    )
    known = {"uv sync --all-groups", ".ci/run", ".ci/pin", "uv build"}
    lines = [line for block in blocks("sh") if not block.text.startswith("curl ") for line in shell_lines(block)]
    assert [line for line in lines if not (line.startswith(tested) or line in known or LOCALAPI.match(line))] == []


def shell_lines(block: Block) -> list[str]:
    return [line for line in lines_of_shell() if line in block.text]
