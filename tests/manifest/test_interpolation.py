"""References to variables in values, and the keys at the top level that hold anchors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from localapi.manifest import ManifestSource, describe
from localapi.manifest.including import followed

pytestmark = pytest.mark.everyday

SCHEMA = Path(__file__).parents[2] / "configs/models.schema.json"
ENTRY = "chat:\n  a:\n    backend: echo\n    {}\n"


def options(manifest_of, line):
    return manifest_of(ENTRY.format(line)).entries["a"].options


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("max_concurrent: ${env.N}", "max_concurrent", 3),
        ("preload: ${env.YES}", "preload", True),
        ("queue_timeout_seconds: ${env.HALF}", "queue_timeout_seconds", 2.5),
        ("max_concurrent: ${env.MISSING:-7}", "max_concurrent", 7),
        ("max_concurrent: ${env.EMPTY:-7}", "max_concurrent", 7),
        ("max_concurrent: ${env.N}${env.N}", "max_concurrent", 33),
        ("keep_alive: ${env.N}m", "keep_alive", 180),
        ('description: "${env.N}"', "description", "3"),
        ("description: 'a ${env.WORD:-b} c'", "description", "a text c"),
        ("description: $${env.N} is $${", "description", "${env.N} is ${"),
        ("description: ${N} and ${environment}", "description", "${N} and ${environment}"),
        ("description: ${env.MISSING:-a:-b $ c}", "description", "a:-b $ c"),
        ("description: '${env.EMPTY}'", "description", ""),
        ('aliases: ["${env.WORD}"]', "aliases", ["text"]),
        ("description: ${env.NESTED}", "description", "${env.N}"),
    ],
)
def test_a_reference_is_replaced_and_then_typed_as_yaml_types_it(manifest_of, monkeypatch, line, field, value):
    for variable in ("N=3", "YES=true", "HALF=2.5", "EMPTY=", "WORD=text", "NESTED=${env.N}"):
        monkeypatch.setenv(*variable.split("="))

    assert getattr(options(manifest_of, line), field) == value


def test_dotenv_is_below_the_environment(manifest_of, write, monkeypatch):
    write("ONE=dotenv\nTWO=dotenv\n", ".env")
    monkeypatch.setenv("ONE", "environment")

    assert options(manifest_of, 'description: "${env.ONE} ${env.TWO}"').description == "environment dotenv"


def test_a_profile_may_have_references_too(manifest_of, monkeypatch):
    monkeypatch.setenv("N", "4")

    manifest = manifest_of(ENTRY.format("aliases: [x]"), "chat: \n  a:\n    max_concurrent: ${env.N}")

    assert manifest.entries["a"].options.max_concurrent == 4


@pytest.mark.parametrize("line", ["description: ${env.MISSING}", 'aliases: [ok, "a${env.MISSING}"]'])
def test_a_missing_variable_is_an_error_with_line_and_entry(problems_of, line):
    (problem,) = problems_of(ENTRY.format(line))

    assert problem.startswith("models.yaml:4:")
    assert "chat.a." in problem
    assert "MISSING" in problem


@pytest.mark.parametrize("wrong", ["${env.1}", "${env.}", "${env}", "${env.A", "${env.A:default}", "${env.A-b}"])
def test_what_looks_like_a_reference_and_is_none_is_an_error(problems_of, wrong):
    (problem,) = problems_of(ENTRY.format(f"description: '{wrong}'"))

    assert problem.startswith("models.yaml:4:18: chat.a.description:")
    assert "${env.NAME:-default}" in problem


def test_a_reference_in_braces_needs_quotes_and_the_error_says_so(problems_of):
    (problem,) = problems_of("chat: {a: {backend: echo, keep_alive: ${env.A:-1m}}}")

    assert problem.startswith("models.yaml:1:40:")
    assert "quotes" in problem


def test_a_key_of_a_mapping_is_no_place_for_a_reference(manifest_of):
    assert list(manifest_of("chat: {'${env.A}': {backend: echo}}").entries) == ["${env.A}"]


SECRET = "do-not-show-this"


@pytest.mark.parametrize(
    "line",
    ["max_concurrent: ${env.S}", "swap: ${env.S}", "keep_alive: '${env.S}'", "defaults: ${env.S}", "aliases: ${env.S}"],
)
def test_no_error_shows_what_a_variable_holds(problems_of, monkeypatch, line):
    monkeypatch.setenv("S", SECRET)

    problems = "\n".join(problems_of(ENTRY.format(line)))

    assert problems
    assert SECRET not in problems


def test_the_table_of_values_shows_the_reference(manifest_of, monkeypatch):
    monkeypatch.setenv("S", SECRET)
    manifest = manifest_of(
        "chat:\n  a:\n    backend: openai\n    url: http://localhost:1\n    headers:\n      X-Key: ${env.S}\n"
        "  b:\n    backend: echo\n    description: ${env.S}\n"
    )

    assert SECRET not in repr(describe(manifest))
    assert SECRET not in repr(manifest.said)
    assert "${env.S}" in [row.value for row in describe(manifest)]


def test_dotenv_is_followed_if_a_file_refers_to_variables(write):
    plain, referring = write("chat: {}", "plain.yaml"), write("x-a: ${env.A}", "referring.yaml")

    assert [str(path) for path in followed([plain]).files] == ["plain.yaml"]
    assert [str(path) for path in ManifestSource(referring).files()] == ["referring.yaml", ".env"]


ANCHORS = """
x-small: &small
  backend: echo
  max_concurrent: 2
x-unused: {anything: [1, "${env.MISSING}"]}
chat:
  a: {<<: *small, aliases: [b]}
"""


def test_keys_that_begin_with_x_hold_anchors_and_mean_nothing(manifest_of):
    manifest = manifest_of(ANCHORS, "x-more: 1")

    assert manifest.entries["a"].options.max_concurrent == 2
    assert not [key for key in manifest.said if str(key[0]).startswith("x-")]


def test_an_error_in_an_anchor_has_the_line_of_the_anchor(problems_of):
    (problem,) = problems_of(ANCHORS.replace("max_concurrent: 2", "max_concurent: 2"))

    assert problem.startswith("models.yaml:4:3: chat.a.max_concurent:")


@pytest.mark.parametrize("text", ["x: 1", "X-a: 1", "chat: {x-a: 1}", "server: {x-a: 1}"])
def test_no_other_key_is_ignored(problems_of, text):
    assert problems_of(text)


def test_the_schema_knows_both():
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    schema.validate(
        {"x-base": {"backend": 1}, "server": {"drain_seconds": "${env.A}", "memory_budget": "${env.B:-8GB}"}}
    )
    schema.validate({"chat": {"a": {"backend": "echo", "preload": "${env.A:-true}", "keep_alive": "${env.B}"}}})
    assert not schema.is_valid({"server": {"drain_seconds": "${A}"}})
