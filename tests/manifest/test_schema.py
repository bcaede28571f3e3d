"""The JSON Schema that editors use, and the files that we ship."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from localapi.manifest import ManifestSource, json_schema, read

pytestmark = pytest.mark.everyday

CHECKOUT = Path(__file__).parents[2]
MANIFEST = CHECKOUT / "models.yaml"
PROFILES = sorted((CHECKOUT / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema())


def test_the_schema_in_the_checkout_is_current(schema):
    written = (CHECKOUT / "configs/models.schema.json").read_text()

    assert written == json.dumps(schema.schema, indent=2) + "\n", "run: localapi schema > configs/models.schema.json"


@pytest.mark.parametrize("path", [MANIFEST, *PROFILES], ids=lambda path: path.name)
def test_what_we_ship_names_its_schema_and_keeps_to_it(path, schema):
    first = path.read_text().splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")

    assert (path.parent / named).resolve() == CHECKOUT / "configs/models.schema.json"
    schema.validate(yaml.safe_load(path.read_text()))


def test_the_shipped_manifest_offers_what_the_readme_says():
    manifest = read(ManifestSource(MANIFEST))

    assert [(e.id, e.identity.backend, e.options.aliases) for e in manifest.entries.values()] == [
        ("local-chat", "mlx-lm", ["gpt-4o-mini"]),
        ("demo", "mlx-lm", []),
        ("echo", "echo", []),
        ("local-audio", "macos-say" if sys.platform == "darwin" else "espeak-ng", ["tts-1"]),
    ]
    assert manifest.entries["demo"].options.defaults.temperature == 0


@pytest.mark.parametrize("profile", [path.stem for path in PROFILES])
def test_every_shipped_profile_works_over_the_shipped_manifest_and_over_any_other(profile, write):
    read(ManifestSource(MANIFEST, profile))
    read(ManifestSource(write("chat: {mine: {backend: echo}}"), profile))


def test_the_shipped_profiles_do_what_they_say():
    profiles = {path.stem: read(ManifestSource(MANIFEST, path.stem)) for path in PROFILES}

    assert set(profiles) == {"echo", "dev", "apple-silicon", "cpu"}
    assert {entry.identity.backend for entry in profiles["echo"].entries.values()} == {"echo"}
    assert profiles["dev"].server.log_level == "debug"
    assert profiles["dev"].entries["local-chat"].identity.options["path"].endswith("demo/model")
    assert profiles["apple-silicon"].entries["local-audio"].identity.backend == "macos-say"
    assert profiles["cpu"].entries["local-audio"].identity.backend == "espeak-ng"


@pytest.mark.parametrize(
    "document",
    [
        {"chats": {}},
        {"chat": {"a": {"backend": "mlxlm"}}},
        {"chat": {"a": {"backend": "echo", "path": "x"}}},
        {"chat": {"a": {"backend": "mlx-lm", "path": "x", "max_bach": 1}}},
        {"chat": {"a": {"backend": "mlx-lm"}}},
        {"chat": {"a": {"backend": "echo", "defaults": {"temprature": 1}}}},
        {"chat": {"a": {"backend": "echo", "defaults": {"temperature": 3}}}},
        {"chat": {"a": {"backend": "echo", "keep_alive": "soon"}}},
        {"chat": {"a": {"bakend": "echo"}}},
        {"server": {"log_level": "loud"}},
        {"speech": {"a": {"backend": "mlx-lm", "path": "x"}}},
    ],
)
def test_the_schema_refuses_what_the_server_refuses(document, schema):
    assert not schema.is_valid(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"chat": None, "speech": None, "server": None, "echo": None},
        {"chat": {"a": None}},
        {"chat": {"a": {"max_batch": 4, "path": None}}},
        {"chat": {"a": {"backend": "echo", "preload": None, "keep_alive": "1.5h", "defaults": {"stop": ["x"]}}}},
        {"server": {"drain_seconds": None, "keep_alive": 60}},
    ],
)
def test_the_schema_takes_what_a_profile_may_say(document, schema):
    schema.validate(document)


def test_every_key_that_editors_complete_has_a_description(schema):
    entry = schema.schema["$defs"]["MlxLm"]["properties"]

    assert [key for key, part in entry.items() if key != "backend" and not part.get("description")] == []
