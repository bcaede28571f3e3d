"""The tables and lists of the documents are complete, and say what the code says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from localapi import errors
from localapi.api import openapi
from localapi.api.openai import completions, speech
from localapi.api.openai.chat_request import _NOT_HONOURED, ChatRequest
from localapi.api.openai.completions import CompletionRequest
from localapi.api.openai.generation_request import NO_EFFECT
from localapi.api.operation import MAX_BODY_BYTES
from localapi.app import Service, create_app
from localapi.http import body
from localapi.http import hypercorn_server as connections
from localapi.kinds import CHAT as CHAT_KIND
from localapi.kinds import SPEECH
from localapi.manifest import ManifestSource, Overrides, read
from localapi.manifest.environment import variables
from localapi.settings import Settings
from tests.documents.pages import ROOT, page, quoted

CHAT = page("chat.md")
SECURITY = page("security.md")


def variables_of_the_code() -> set[str]:
    settings = {str(field.validation_alias or name).upper() for name, field in Settings.model_fields.items()}
    return {*settings, *variables(), "ECHO_MODE"}


def test_the_environment_table_lists_every_variable() -> None:
    listed = [name for row in page("environment.md").table("Variables") for name in quoted(row[0])]
    assert sorted(listed) == sorted(variables_of_the_code())


def test_the_environment_table_tells_defaults_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables_of_the_code():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    told = {quoted(row[0])[0]: row[1] for row in page("environment.md").table("Variables")}
    settings, overrides, source = Settings.read(), Overrides.read(), ManifestSource()
    assert (told["HOST"], told["PORT"]) == (settings.host, str(settings.port))
    assert (told["CHAT_MODEL_ID"], told["AUDIO_MODEL_ID"]) == (
        *(overrides.entry_id(kind.variables) for kind in (CHAT_KIND, SPEECH) if kind.variables),
    )
    assert told["LOCALAPI_MANIFEST"] == str(source.manifest)


def test_the_endpoint_table_lists_every_route() -> None:
    app = create_app(Service(Settings.read(), ManifestSource()))
    assert {(row[0], quoted(row[1])[0]) for row in page("http.md").table("Endpoints")} == openapi.documented(app)


def test_every_endpoint_has_its_section_in_the_reference_or_a_page_of_its_own() -> None:
    told = {heading.removeprefix("## ") for heading in page("http.md").headings}
    rows = page("http.md").table("Endpoints")
    assert [row for row in rows if f"{row[0]} {quoted(row[1])[0]}" not in told and ".md" not in row[2]] == []


def test_the_error_table_lists_every_status_and_code() -> None:
    listed = {(int(row[0]), code) for row in page("http.md").table("Errors") for code in quoted(row[1])}
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
    assert f"less than {MAX_BODY_BYTES // 2**20} MiB" in page("http.md").section("Errors")


def test_the_limits_below_the_application_are_told_as_they_are() -> None:
    told = {row[0]: row[1] for row in SECURITY.table("Limits")}
    assert told["head of a request"] == (
        f"{connections.HEAD_BYTES // 1024} KiB, complete within {connections.HEAD_SECONDS:g} s of its first byte"
    )
    assert told["body of a request"] == (
        f"{MAX_BODY_BYTES // 2**20} MiB ({speech.MAX_BODY_BYTES // 2**20} MiB for speech, with recordings), "
        f"complete within {body.BODY_SECONDS} s"
    )
    assert told["connections"].startswith(f"{connections.MAX_CONNECTIONS};")


def parameters() -> list[tuple[str, list[str]]]:
    """Each parameter of the table, and the other cells of its row."""
    return [(name, row[1:]) for row in CHAT.table("Parameters") for name in quoted(row[0])]


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
    accepted, _, rest = (
        CHAT.section("Parameters").partition("Accepted without effect: ")[2].partition("Refused with a 400")
    )
    of_chat, _, of_completions = rest.partition("of chat")[2].partition(". Any other")[0].partition("of completions")
    assert quoted(accepted) == sorted(NO_EFFECT)
    assert quoted(of_chat) == sorted(_NOT_HONOURED)
    assert quoted(of_completions) == sorted(completions._NOT_HONOURED)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: str(path.stem))
def test_each_profile_is_named_and_fits_the_shipped_manifest(path: Path) -> None:
    assert f"configs/{path.name}" in page("models-yaml.md").section("Profiles")
    assert read(ManifestSource(ROOT / "models.yaml", path.stem)).entries
