"""Patterns for the names of properties: llguidance refuses two that match one name, in whatever schemas they are."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from localapi.worker.llm.constrained.compiling import problem_of
from localapi.worker.llm.constrained.schema_grammar import GrammarRefused, grammar_of_schema
from tests.worker.llm.constrained.test_json_schema import answers

NULL, INTEGER, STRING = {"type": "null"}, {"type": "integer"}, {"type": "string"}


def patterned(patterns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "patternProperties": patterns, **more}


A, B = patterned({"^a": NULL}), patterned({"b$": INTEGER})

OVERLAPPING: list[tuple[Any, tuple[str, ...]]] = [
    # in one schema
    (patterned({"^a|b$": NULL, "^a": INTEGER}), ("patternProperties",)),
    (patterned({"^a": NULL, "b$": INTEGER}), ("patternProperties",)),
    (patterned({"a": NULL, "^[^b]+$": INTEGER}), ("patternProperties",)),
    (patterned({"": NULL, "^a": INTEGER}), ("patternProperties",)),
    (patterned({"^(?!a)": NULL, "b$": INTEGER}), ("patternProperties",)),
    (patterned({"^a": NULL, "^b": INTEGER, "c$": STRING}), ("patternProperties",)),
    (patterned({"^a": NULL, "b$": NULL, "^ab?$": INTEGER}), ("patternProperties",)),
    (patterned({"^a": NULL, "b$": INTEGER}, properties={"ab": INTEGER}), ("patternProperties",)),
    (
        patterned({"^a": NULL, "b$": INTEGER}, additionalProperties=STRING),
        ("patternProperties", "additionalProperties"),
    ),
    (patterned({"^a": NULL, "b$": INTEGER}, additionalProperties=False), ("patternProperties", "additionalProperties")),
    (
        patterned({"^a": NULL, "b$": INTEGER}, unevaluatedProperties=False),
        ("patternProperties", "unevaluatedProperties"),
    ),
    # in schemas that apply together
    ({"type": "object", "allOf": [A, B]}, ("allOf.1.patternProperties",)),
    ({"allOf": [A, patterned({"^b": NULL}), B]}, ("allOf.2.patternProperties",)),
    ({"allOf": [patterned({"^a": NULL, "b$": NULL}), A]}, ("allOf.1.patternProperties",)),
    ({"allOf": [patterned({"^a|b$": NULL}), A, B]}, ("allOf.1.patternProperties", "allOf.2.patternProperties")),
    (
        {**A, "allOf": [{**B, "additionalProperties": False}]},
        ("allOf.0.patternProperties", "allOf.0.additionalProperties"),
    ),
    ({**A, "properties": {"ab": NULL}, "allOf": [B]}, ("allOf.0.patternProperties",)),
    ({**A, "anyOf": [B, {"required": ["x"]}]}, ("anyOf.0.patternProperties",)),
    (
        {**A, "oneOf": [{**B, "required": ["x"]}, {**B, "properties": {"x": False}}]},
        ("oneOf.0.patternProperties", "oneOf.1.patternProperties"),
    ),
    ({**A, "dependentSchemas": {"k": B}}, ("dependentSchemas.k.patternProperties",)),
    ({**A, "$ref": "#/$defs/b", "$defs": {"b": B}}, ("$defs.b.patternProperties",)),
    (
        {"type": "object", "properties": {"x": A}, "additionalProperties": False, "allOf": [{"properties": {"x": B}}]},
        ("allOf.0.properties.x.patternProperties",),
    ),
    ({**patterned({"^x": A}), "properties": {"x": B}, "required": ["x"]}, ("patternProperties.^x.patternProperties",)),
    ({"type": "array", "items": A, "allOf": [{"items": B}]}, ("allOf.0.items.patternProperties",)),
    # in what other keywords become
    ({**A, "allOf": [{"propertyNames": {"pattern": "b$"}}]}, ("allOf.0.propertyNames",)),
    ({**A, "allOf": [{"propertyNames": {"minLength": 2, "maxLength": 3}}]}, ("allOf.0.propertyNames",)),
]

APART: list[Any] = [
    patterned({"^a": NULL, "^b": INTEGER, "^[c-z]": STRING}, additionalProperties=False),
    patterned({"^a": NULL, "b$": NULL}, additionalProperties=INTEGER),
    patterned({"^a": {"type": ["null", "integer"]}}, properties={"ab": INTEGER}, required=["ab"]),
    {"allOf": [A, patterned({"^b": INTEGER})]},
    {"allOf": [A, patterned({"^a": {"type": ["null", "integer"]}})]},
    {"type": "object", "anyOf": [A, B]},
    {"type": "object", "properties": {"x": A, "y": B}, "required": ["x", "y"]},
]


def shown(value: object) -> str:
    return json.dumps(value)[:90]


@pytest.mark.parametrize(("schema", "places"), OVERLAPPING, ids=shown)
def test_patterns_that_match_one_name_are_relaxed_and_named(schema: Any, places: tuple[str, ...]) -> None:
    found = grammar_of_schema("It", schema, strict=False)

    assert found.relaxed == places
    assert problem_of(found.grammar) == ""


@pytest.mark.parametrize(("schema", "places"), OVERLAPPING, ids=shown)
def test_patterns_that_match_one_name_are_refused_at_their_place_if_strict(
    schema: Any, places: tuple[str, ...]
) -> None:
    with pytest.raises(GrammarRefused) as refused:
        grammar_of_schema("It", schema, strict=True)

    assert f"{', '.join(places)}." in str(refused.value)


@pytest.mark.parametrize("schema", APART, ids=shown)
@pytest.mark.parametrize("strict", [False, True])
def test_patterns_that_cannot_meet_are_enforced(schema: Any, strict: bool) -> None:
    assert grammar_of_schema("It", schema, strict=strict).relaxed == ()

    for answer in answers(schema, strict=strict):
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)


def test_only_those_of_two_clashing_pairs_are_relaxed_and_the_rest_of_the_schema_holds() -> None:
    both = {"allOf": [A, B]}
    schema = {"type": "object", "properties": {"n": INTEGER, "x": both, "y": A}, "required": ["n", "x", "y"]}

    assert grammar_of_schema("It", schema, strict=False).relaxed == ("properties.x.allOf.1.patternProperties",)
    for answer in answers(schema):
        assert isinstance(answer["n"], int)
        assert all(value is None for part in "xy" for name, value in answer[part].items() if name.startswith("a"))


def test_what_clashes_among_very_many_patterns_is_relaxed_too() -> None:
    many = {f"p{number}": patterned({f"^{number}": NULL}) for number in range(40)}
    schema = {"type": "object", "properties": {**many, "x": {"allOf": [A, B]}}}

    found = grammar_of_schema("It", schema, strict=False)

    assert "properties.x.allOf.1.patternProperties" in found.relaxed
    assert problem_of(found.grammar) == ""
