"""A kind that one file declares is everywhere that kinds are, in a real server and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.server import Server, save, serving

MODULE = "tests.kinds.sentiment_kind"
MANIFEST = """\
chat: {bird: {backend: echo}}
sentiment:
  mood:
    backend: echo
    aliases: [feeling]
    labels: [fine, awful]
"""
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sentiment")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, MANIFEST, module=MODULE) as server:
        yield server


def judged(server: Server, model: str, text: str) -> Any:
    return server.request("POST", "/v1/sentiment", {"model": model, "text": text})


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", MODULE, *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["mood", "feeling"])
def test_its_endpoint_answers_by_id_and_alias(server: Server, name: str) -> None:
    assert judged(server, name, "I feel awful.").json() == {"label": "awful"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/sentiment", {"model": "bird", "text": "x"}),
        ("/v1/chat/completions", {"model": "mood", "messages": [{"role": "user", "content": "x"}]}),
    ],
)
def test_other_kinds_are_told_apart_from_it(server: Server, path: str, body: Any) -> None:
    reply = server.request("POST", path, body)
    assert (reply.status, reply.json()["error"]["code"]) == (400, "wrong_endpoint")


def test_it_is_listed_with_what_only_it_says(server: Server) -> None:
    mood = next(model for model in server.get("/v1/models")["data"] if model["id"] == "mood")
    assert (mood["kind"], mood["labels"]) == ("sentiment", ["fine", "awful"])


def test_the_status_has_it(server: Server) -> None:
    judged(server, "mood", "x")
    mood = server.model("mood")
    assert (mood["kind"], mood["backend"], mood["state"]) == ("sentiment", "echo", "ready")


def test_its_own_counter_is_among_the_metrics(server: Server) -> None:
    judged(server, "mood", "x")
    told = server.request("GET", "/metrics").body.decode()
    count = next(line for line in told.splitlines() if line.startswith('localapi_sentiment_texts_total{model="mood"}'))
    assert float(count.split()[1]) >= 1


def test_the_document_describes_its_endpoint_and_its_models(server: Server) -> None:
    document = server.get("/openapi.json")
    judge = document["paths"]["/v1/sentiment"]["post"]
    assert judge["tags"] == ["sentiment"]
    taken = judge["requestBody"]["content"]["application/json"]
    example = {**taken["example"], "model": "mood"}
    jsonschema.validate(example, {**taken["schema"], "components": document["components"]})
    reply = server.request("POST", "/v1/sentiment", example).json()
    assert "labels" in document["components"]["schemas"]["ModelObject"]["properties"]
    replied = judge["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(reply, {**replied, "components": document["components"]})


def test_a_save_changes_its_settings_in_place(server: Server, folder: Path) -> None:
    judged(server, "mood", "x")
    save(folder / "models.yaml", MANIFEST.replace("awful", "dreadful"))
    try:
        assert server.reload()["changes"]["updated"] == ["mood"]
        assert judged(server, "mood", "How dreadful!").json() == {"label": "dreadful"}
    finally:
        save(folder / "models.yaml", MANIFEST)
        server.reload()


def test_the_json_schema_of_the_manifest_has_its_section(tmp_path: Path) -> None:
    schema = json.loads(run("schema", folder=tmp_path).stdout)
    jsonschema.validate(yaml.safe_load(MANIFEST), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(MANIFEST.replace("labels:", "label:")), schema)


def test_the_reference_describes_its_options(tmp_path: Path) -> None:
    page = run("schema", "--markdown", folder=tmp_path).stdout
    section = page.partition("## Every sentiment model")[2].partition("\n## ")[0]
    assert "| `labels` |" in section
    assert "## sentiment: echo" in page


def test_check_reads_it_and_says_what_is_wrong_with_its_line(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", MANIFEST)
    assert run("check", folder=tmp_path).returncode == 0
    save(tmp_path / "models.yaml", MANIFEST.replace("labels:", "labls:"))
    checked = run("check", folder=tmp_path)
    assert checked.returncode == 1
    assert "models.yaml:6:5: sentiment.mood.labls" in checked.stdout + checked.stderr


def test_add_and_plan_know_it(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST, module=MODULE) as server:
        address = ("--port", str(server.port))
        added = run("add", "--kind", "sentiment", "--backend", "echo", "--id", "joy", *address, folder=tmp_path)
        assert added.returncode == 0, added.stderr
        assert judged(server, "joy", "all good").json() == {"label": "good"}
        draft = tmp_path / "draft.yaml"
        save(draft, (tmp_path / "models.yaml").read_text().replace("awful", "dreadful"))
        planned = run("plan", str(draft), *address, folder=tmp_path)
        assert "sentiment.mood" in planned.stdout


def test_echo_mode_without_a_manifest_has_one(tmp_path: Path) -> None:
    with serving(tmp_path, None, module=MODULE, env={"ECHO_MODE": "1", "SENTIMENT_MODEL_ID": "glad"}) as server:
        assert judged(server, "glad", "good").json() == {"label": "good"}


def test_its_variables_add_an_entry_to_the_manifest(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST, module=MODULE, env={"SENTIMENT_DESCRIPTION": "Looks."}) as server:
        assert server.model("local-sentiment")["description"] == "Looks."
