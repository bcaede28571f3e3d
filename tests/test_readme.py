"""What the README says is true: its examples run, its tables are complete, and what it names exists."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localapi import errors
from localapi import serving as connections
from localapi.api import body, completions
from localapi.api.chat_request import _NOT_HONOURED, ChatRequest
from localapi.api.completions import CompletionRequest
from localapi.api.generation_request import NO_EFFECT
from localapi.app import MAX_BODY_BYTES, Service, create_app
from localapi.backends.echo_speech import EchoSpeech
from localapi.backends.mlx_lm import MlxLm
from localapi.backends.options import ChatOptions, EntryOptions
from localapi.backends.parameters import ChatParameters, SpeechParameters
from localapi.backends.speech import SpeechOptions
from localapi.cli.group import COMMANDS as KNOWN_COMMANDS
from localapi.cli.group import command_named
from localapi.manifest import ManifestSource, Overrides, ServerOptions, read
from localapi.manifest.document import SECTIONS, Document
from localapi.settings import Settings
from tests.piper_voice import make_voice
from tests.server import Reply, Server, serving
from tests.sound import seconds

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SPEECH = (ROOT / "docs" / "speech.md").read_text()
CHAT = (ROOT / "docs" / "chat.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()
OBSERVING = (ROOT / "docs" / "observing.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PAGES = README + CHAT + SPEECH + SECURITY + OBSERVING + OPERATIONS
HERE = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    language: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", PAGES, re.DOTALL | re.MULTILINE)]
PROSE = re.sub(r"^```.*?^```$", "", PAGES, flags=re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [block.text for block in BLOCKS if block.language == language]


def section(title: str) -> str:
    """The text from a heading to the next one, of whatever level."""
    return re.split(r"^#+ ", PAGES.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def table(title: str) -> list[list[str]]:
    """The cells of the rows below the head of the table in a section."""
    rows = [line.strip("|").split("|") for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def lines_of(language: str) -> list[str]:
    return [line for text in blocks(language) for line in text.splitlines()]


COMMANDS = [line for line in lines_of("sh") if re.match(r"(\w+=\S+ )*uv run localapi( |$)", line)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The checkout's own manifest, as the README starts it."""
    with serving(ROOT) as server:
        yield server


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples in YAML as files: the first comment of each says which."""
    for text in blocks("yaml"):
        named = re.match(r"# (\S+\.yaml)\n", text)
        assert named, f"an example in YAML begins with its file's name:\n{text}"
        path = tmp_path / named[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "configs" / "guest.key").write_text("g" * 16)
    monkeypatch.setenv("OPERATOR_KEY", "o" * 16)
    (tmp_path / "voices").mkdir()
    make_voice(tmp_path / "voices" / "amy.onnx")
    (tmp_path / "voices" / "me.wav").touch()
    return tmp_path / "models.yaml"


# What a person types


def test_the_two_commands_are_there_and_ci_runs_the_second() -> None:
    assert "pip install uv && uv run localapi" in lines_of("sh")
    assert "uv run pytest" in lines_of("sh")
    assert "uv run pytest" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_request_for_speech_writes_the_file_that_it_names(server: Server, tmp_path: Path) -> None:
    scripts = {text for text in blocks("sh") if text.startswith("curl ") and "/v1/audio/speech" in text}
    (script,) = scripts  # the same on both pages
    subprocess.run(["sh", "-c", at(server, script)], cwd=tmp_path, timeout=120, check=True)
    assert 1 < seconds((tmp_path / "morning.mp3").read_bytes(), "mp3") < 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_first_request_with_curl_gets_an_answer(server: Server) -> None:
    script = next(text for text in blocks("sh") if text.startswith("curl "))
    done = subprocess.run(["sh", "-c", at(server, script)], capture_output=True, text=True, timeout=120, check=True)
    assert "What is the capital of France?" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_each_python_example_runs_and_prints_what_it_says(server: Server, tmp_path: Path) -> None:
    for text in blocks("python"):
        promised = re.findall(r"^ *print\(.*\)  # (.+)$", text, re.MULTILINE)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", at(server, text)],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert promised
        assert done.stdout.splitlines()[: len(promised)] == promised


def test_the_streamed_example_prints_the_same_answer(server: Server, tmp_path: Path) -> None:
    (text,) = [text for text in blocks("python") if "stream=True" in text]
    done = subprocess.run(
        [sys.executable, "-c", at(server, text)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    whole, streamed = done.stdout.splitlines()
    assert whole == streamed


def at(server: Server, text: str) -> str:
    """The example, sent to the server of this test."""
    assert HERE in text
    return text.replace(HERE, server.url)


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Path:
    """A folder with the shipped manifest, and a program that plays sound."""
    shutil.copy(ROOT / "models.yaml", tmp_path)
    player = tmp_path / "bin" / "afplay"
    player.parent.mkdir()
    player.write_text("#!/bin/sh\necho played\n")
    player.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_line_is_one_that_the_program_takes(line: str, home: Path, server: Server) -> None:
    variables, _, arguments = line.partition("uv run localapi")
    assert {word.partition("=")[0] for word in variables.split()} <= variables_of_the_code()
    words = shlex.split(arguments.partition(">")[0])
    name, rest = (words[0], words[1:]) if words and words[0] in KNOWN_COMMANDS else ("serve", words)
    command_named(name).make_context(name, list(rest))  # raises on a wrong option
    if name in {"serve", "install", "pull", "doctor", "service"}:
        return  # these have tests of their own, with a Hub, a machine and a system of their own
    env = {
        **os.environ,
        "PORT": str(server.port),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "localapi", name, *rest],
        cwd=home, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = home / rest[rest.index("-o") + 1] if "-o" in rest else None
    assert written.stat().st_size > 0 if written else done.stdout or "played" in done.stderr


def test_it_shows_every_command() -> None:
    text = section("Command line")
    assert {name for name in KNOWN_COMMANDS if f"uv run localapi {name}" in text} == set(KNOWN_COMMANDS)


def test_the_line_that_serves_a_profile_serves_it() -> None:
    profile = "--profile echo"
    assert any(profile in line for line in COMMANDS)
    with serving(ROOT, None, *profile.split()) as server:
        models = server.get("/v1/models")["data"]
    assert {model["backend"] for model in models} == {"echo"}
    assert "demo" in {model["id"] for model in models}


def test_the_line_with_a_variable_needs_no_manifest(tmp_path: Path) -> None:
    assert "CHAT_MODEL_PATH=demo uv run localapi" in COMMANDS
    with serving(tmp_path, env={"CHAT_MODEL_PATH": "demo"}) as server:
        question = [{"role": "user", "content": "Count to five."}]
        body = {"model": "local-chat", "messages": question, "temperature": 0}
        reply = server.request("POST", "/v1/chat/completions", body)
    assert reply.json()["choices"][0]["message"]["content"] == "1 2 3 4 5"


@pytest.mark.parametrize("line", [line for line in lines_of("sh") if line.startswith("uv run pytest ")])
def test_each_line_of_tests_names_tests(line: str) -> None:
    words = line.removeprefix("uv run pytest ").split()
    assert all((ROOT / word).exists() for word in words if not word.startswith("-"))
    for option in (word for word in words if word.startswith("-")):
        assert f'addoption("{option}"' in (ROOT / "tests" / "conftest.py").read_text()


@pytest.mark.parametrize("line", [line for line in lines_of("sh") if line.startswith("uv run python ")])
def test_each_benchmark_knows_its_options(line: str) -> None:
    words = shlex.split(line.removeprefix("uv run python "))
    done = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[\w-]+", done.stdout))


def test_no_line_for_the_shell_goes_untested() -> None:
    tested = (
        "uv run localapi",
        "uv run pytest",
        "uv run python ",
        "pip install uv && uv run localapi",
        "CHAT_MODEL_PATH=",
    )
    starts = [text.splitlines() for text in blocks("sh") if not text.startswith("curl ")]
    assert [line for lines in starts for line in lines if not line.startswith(tested)] == []


# The manifest


def test_the_examples_in_yaml_are_manifests(manifest: Path) -> None:
    alone = read(ManifestSource(manifest))
    assert list(alone.entries) == ["local-chat", "local-audio"]
    changed = read(ManifestSource(manifest, "mine"))
    assert list(changed.entries) == ["local-chat", "scratch"]
    speaking = read(ManifestSource(manifest, "voices"))
    asking = read(ManifestSource(manifest, "keys"))
    assert [(key.name, key.models, key.admin) for key in asking.keys] == [
        ("operator", None, True), ("guest", {"local-chat"}, False),
    ]  # fmt: skip
    assert [entry.id for entry in speaking.entries.values() if entry.kind == "speech"] == [
        "local-audio", "amy", "robot", "cloned",
    ]  # fmt: skip


def test_the_manifest_by_example_shows_every_option_and_value() -> None:
    example = "".join(blocks("yaml"))
    fields = {*Document.model_fields, *ServerOptions.model_fields, *MlxLm.model_fields, *EchoSpeech.model_fields}
    fields |= {*ChatParameters.model_fields, *SpeechParameters.model_fields}
    fields |= {name for options in SECTIONS.values() for backend in options.values() for name in backend.model_fields}
    words = set(re.findall(r"[\w-]+", example))
    backends = {name for options in SECTIONS.values() for name in options}
    assert fields - words == set()
    assert backends - words == set()
    assert {"debug", "info", "warning", "error", "warm", "cold", "forever", "demo"} - words == set()


def test_the_values_called_defaults_are_defaults(manifest: Path) -> None:
    shown, usual = read(ManifestSource(manifest)).server, ServerOptions()
    assert shown == usual
    options = MlxLm(backend="mlx-lm", path="demo")
    for name in ("max_batch", "max_stall_ms", "prefix_cache_mb", "prefix_cache_disk_mb", "swap"):
        assert f" {name}: {getattr(options, name)} " in blocks("yaml")[0]


def test_what_changes_in_place_is_listed() -> None:
    listed = section("What happens on save").partition("change in place")[0].rpartition("- ")[2]
    in_place = {*EntryOptions.model_fields, *ChatOptions.model_fields, *SpeechOptions.model_fields}
    assert {*quoted(listed), "preload"} == in_place  # preload only matters when something loads


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: str(path.stem))
def test_each_profile_is_named_and_fits_the_shipped_manifest(path: Path) -> None:
    assert f"configs/{path.name}" in section("Profiles")
    assert read(ManifestSource(ROOT / "models.yaml", path.stem)).entries


# Tables


def variables_of_the_code() -> set[str]:
    fields = {**Settings.model_fields, **Overrides.model_fields}
    return {str(field.validation_alias or name).upper() for name, field in fields.items()}


def test_the_environment_table_lists_every_variable() -> None:
    listed = [name for row in table("Environment") for name in quoted(row[0])]
    assert sorted(listed) == sorted(variables_of_the_code())


def test_the_environment_table_tells_defaults_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables_of_the_code():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    told = {quoted(row[0])[0]: row[1] for row in table("Environment")}
    settings, overrides, source = Settings.read(), Overrides.read(), ManifestSource()
    assert (told["HOST"], told["PORT"]) == (settings.host, str(settings.port))
    assert (told["CHAT_MODEL_ID"], told["AUDIO_MODEL_ID"]) == (overrides.chat_id, overrides.audio_id)
    assert told["LOCALAPI_MANIFEST"] == str(source.manifest)


def test_the_endpoint_table_lists_every_route() -> None:
    app = create_app(Service(Settings.read(), ManifestSource()))
    routes = {
        (method, re.sub(r"<[^>]+>", "{id}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(row[0], quoted(row[1])[0]) for row in table("Endpoints")} == routes


def test_the_error_table_lists_every_status_and_code() -> None:
    listed = {(int(row[0]), code) for row in table("Errors") for code in quoted(row[1])}
    tree = descendants(errors.ApiError)
    raised = {(errors.InvalidRequest.status, code) for code in codes_of_bad_requests()}
    assert listed == {(kind.status, kind.code) for kind in tree if kind.code} | raised


def descendants(kind: type[errors.ApiError]) -> set[type[errors.ApiError]]:
    return {kind}.union(*(descendants(sub) for sub in kind.__subclasses__() if sub.__module__ == errors.__name__))


def codes_of_bad_requests() -> set[str]:
    """Codes that are given where a bad request is raised, instead of by a class."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "localapi").rglob("*.py") if "worker" not in path.parts]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        str(keyword.value.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == errors.InvalidRequest.__name__
        for keyword in call.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }


def test_the_limit_of_a_body_is_told_as_it_is() -> None:
    assert f"less than {MAX_BODY_BYTES // 2**20} MiB" in section("Errors")


def test_the_limits_below_the_application_are_told_as_they_are() -> None:
    told = {row[0]: row[1] for row in table("Limits")}
    assert told["head of a request"] == (
        f"{connections.HEAD_BYTES // 1024} KiB, complete within {connections.HEAD_SECONDS:g} s of its first byte"
    )
    assert told["body of a request"] == f"{MAX_BODY_BYTES // 2**20} MiB, complete within {body.BODY_SECONDS} s"
    assert told["connections"].startswith(f"{connections.MAX_CONNECTIONS};")


def parameters() -> list[tuple[str, list[str]]]:
    """Each parameter of the table, and the other cells of its row."""
    return [(name, row[1:]) for row in table("Parameters") for name in quoted(row[0])]


def test_the_parameters_are_told_completely() -> None:
    told = {name: cells[0] for name, cells in parameters()}
    assert set(told.values()) == {"both", "chat", "completions"}
    assert {name for name, of in told.items() if of != "completions"} == {*ChatRequest.model_fields}
    assert {name for name, of in told.items() if of != "chat"} == {*CompletionRequest.model_fields}


BOUNDS = re.compile(r"(above )?(-?\d+) (?:to (-?\d+)|or more)")


@pytest.mark.parametrize(("name", "told"), [(name, cells[1]) for name, cells in parameters() if BOUNDS.match(cells[1])])
def test_the_bounds_of_a_parameter_are_those_of_the_code(name: str, told: str) -> None:
    (above, low, high) = BOUNDS.findall(told)[0]
    bounds = vars_of(ChatRequest.model_fields[name].metadata)
    assert bounds == {"gt" if above else "ge": int(low), **({"le": int(high)} if high else {})}


def vars_of(metadata: list[Any]) -> dict[str, float]:
    return {key: getattr(item, key) for item in metadata for key in ("ge", "gt", "le") if hasattr(item, key)}


def test_what_has_no_effect_or_is_refused_is_told_completely() -> None:
    accepted, _, rest = section("Parameters").partition("Accepted without effect: ")[2].partition("Refused with a 400")
    of_chat, _, of_completions = rest.partition("of chat")[2].partition(". Any other")[0].partition("of completions")
    assert quoted(accepted) == sorted(NO_EFFECT)
    assert quoted(of_chat) == sorted(_NOT_HONOURED)
    assert quoted(of_completions) == sorted(completions._NOT_HONOURED)


# Names


def test_each_file_that_is_named_exists() -> None:
    words = {word for word in re.findall(r"[\w./-]+", " ".join(quoted(PROSE))) if not word.startswith("/")}
    files = {
        word
        for word in words
        if re.search(r"\.(py|yaml|json|toml|http|md)$", word) or word.startswith((".ci/", "localapi/", "tests/"))
    }
    of_models = {"config.json", ".onnx.json"}
    missing = {word for word in files - of_models if "NAME" not in word and not (ROOT / word).exists()}
    assert files > {"models.yaml", "requests.http", ".ci/run", ".ci/pin", "pyproject.toml"}
    assert missing == set()


def test_each_link_leads_to_a_heading() -> None:
    anchors = {re.sub(r"[^\w]+", "-", title.lower()) for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
    pages = (SPEECH, CHAT, SECURITY, OBSERVING, OPERATIONS)
    for page, folder in ((README, ROOT), *((page, ROOT / "docs") for page in pages)):
        assert [link for link in re.findall(r"\]\(([\w./-]+)\)", page) if not (folder / link).is_file()] == []


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 330


# requests.http


@dataclass(frozen=True)
class Sample:
    """One request of requests.http."""

    title: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any

    @property
    def status(self) -> int:
        """A title that ends with a number tells the status."""
        told = re.search(r": (\d{3})$", self.title)
        return int(told[1]) if told else 200


def samples() -> list[Sample]:
    preamble, *parts = re.split(r"^### ", (ROOT / "requests.http").read_text(), flags=re.MULTILINE)
    host = re.search(r"^@host = (\S+)$", preamble, re.MULTILINE)
    assert host
    assert host[1] == HERE
    return [sample(part) for part in parts]


def sample(text: str) -> Sample:
    head, _, body = text.partition("\n\n")
    title, request, *headers = head.splitlines()
    method, url = request.split()
    assert url.startswith("{{host}}/")
    return Sample(
        title,
        method,
        url.removeprefix("{{host}}"),
        dict(line.split(": ", 1) for line in headers),
        json.loads(body) if body.strip() else None,
    )


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: str(sample.title))
def test_each_sample_request_gets_what_its_title_says(sample: Sample, server: Server) -> None:
    if sample.path == "/status/events":
        return  # it has no end; tests/test_live.py listens to it
    reply: Reply = server.request(sample.method, sample.path, sample.body, sample.headers)
    assert reply.status == sample.status, reply.body
    if sample.body and sample.body.get("stream"):
        assert reply.body.endswith(b"data: [DONE]\n\n")
    if "x-ignored-params" in sample.title:
        assert reply.headers["x-ignored-params"] == "colour"


def test_the_samples_visit_every_endpoint() -> None:
    visited = {
        (sample.method, re.sub(r"((?:/v1|/admin)/models)/[^/]+", r"\1/{id}", sample.path)) for sample in samples()
    }
    assert visited == {(row[0], quoted(row[1])[0]) for row in table("Endpoints")}
