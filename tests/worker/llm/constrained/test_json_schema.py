"""JSON schemas as clients write them: none that asks for something sensible is refused, and what is supported holds."""

from __future__ import annotations

import datetime
import ipaddress
import json
import random
import uuid
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from localapi.worker.llm.constrained.compiling import LIMITS
from localapi.worker.llm.constrained.grammar_trial import Vocabulary
from localapi.worker.llm.constrained.json_level import NotASchema
from localapi.worker.llm.constrained.json_schema import rewrite_schema
from localapi.worker.llm.constrained.schema_grammar import enforceable, grammar_of_schema

BYTES = Vocabulary(())
TOKENS = LLTokenizer(TokenizerWrapper(BYTES))
BYTE_OF = {token: byte for byte, token in enumerate(BYTES.bytes)}
LONGEST = 300
ENDS = frozenset(b'"}],')
BIG = 9007199254740993
"""The first integer that no double holds."""


class Impossible(Exception):
    """llguidance knows of no text that satisfies the schema."""


def compiled(schema: Any, *, strict: bool = False) -> LLMatcher:
    part = grammar_of_schema("It", schema, strict=strict).grammar
    matcher = LLMatcher(TOKENS, json.dumps({"grammars": [part]}), log_level=0, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        problem = matcher.get_error()
        assert problem.startswith(("Unsatisfiable", "NoExtension", "circular")), problem
        raise Impossible(problem)
    return matcher


def written(matcher: LLMatcher, rng: random.Random) -> str | None:
    """Return a random text of the grammar that prefers to end; None if it does not end in time."""
    text = bytearray()
    for _ in range(LONGEST):
        mask = matcher.compute_bitmask()
        allowed = [token for token in (*BYTES.bytes, BYTES.eos_token_id) if mask[token >> 3] >> (token & 7) & 1]
        assert allowed, f"stuck behind {text!r}"
        ends = [token for token in allowed if token == BYTES.eos_token_id or BYTE_OF[token] in ENDS]
        token = rng.choice(ends if ends and rng.random() < 0.35 else allowed)
        matcher.consume_token(token)
        if token == BYTES.eos_token_id or matcher.is_stopped():
            return text.decode() + ("" if token == BYTES.eos_token_id else chr(BYTE_OF[token]))
        text.append(BYTE_OF[token])
    return None


def answers(schema: Any, count: int = 25, *, strict: bool = False) -> list[Any]:
    """Answers that came to an end, as values."""
    matcher, rng = compiled(schema, strict=strict), random.Random(count)
    texts = [written(matcher.deep_copy(), rng) for _ in range(count)]
    return [json.loads(text) for text in texts if text is not None]


def reaches(schema: Any, value: Any) -> bool:
    """Return True if this answer can be written."""
    matcher = compiled(schema)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return all(matcher.consume_token(BYTES.bytes[byte]) for byte in text.encode()) and matcher.is_accepting()


def obj(properties: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def string(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


A_OR_B = {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}}
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
DECIMAL_PLACES = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)"
ZOD_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
ZOD_HOSTNAME = (
    r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$"
)
KEPT: list[Any] = [
    {},
    True,
    {"title": "T", "description": "d", "default": 1, "examples": [1], "x-order": 3, "type": "integer"},
    {"type": "string", "nullable": True},
    {"type": ["string", "null"], "maxLength": 3},
    # nothing asserted
    {"type": "object", "propertyNames": {"type": "string"}},
    {"type": "array", "uniqueItems": False},
    {"type": "array", "uniqueItems": True, "maxItems": 1},
    {"type": "array", "contains": {"type": "null"}, "minContains": 0},
    {"not": False},
    {"if": {"type": "string"}},
    *({"type": "string", "format": name} for name in ("path", "byte", "binary", "decimal", "password", "json-pointer")),
    {"type": "integer", "format": "int64"},
    {"type": "number", "format": "double"},
    *(
        {"type": "string", "format": name}
        for name in ("date-time", "date", "time", "duration", "uuid", "ipv4", "email")
    ),
    # numbers
    {"enum": [BIG, 1, "x"]},
    {"const": {"id": [BIG]}},
    {"const": -BIG},
    {"const": 10**19},
    {"enum": [5.0, 5e-7, 1e22]},
    {"type": "integer", "minimum": BIG, "maximum": BIG},
    {"type": "integer", "minimum": BIG, "maximum": BIG + 1},
    {"type": "integer", "minimum": BIG},
    {"type": "integer", "maximum": -BIG},
    {"type": "integer", "minimum": 0.5, "maximum": 2.5},
    {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    {"type": "integer", "exclusiveMinimum": -(2**63), "exclusiveMaximum": 2**63},
    {"type": "number", "minimum": 0, "maximum": 1e300},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.427},
    {"type": "number", "minimum": -0.01, "exclusiveMaximum": 0},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-10},
    {"type": "number", "minimum": 5e-324},
    {"type": "number", "minimum": -1.7976931348623157e308, "maximum": 1.7976931348623157e308},
    {"type": "integer", "multipleOf": 0.5},
    {"type": "integer", "multipleOf": 65537, "minimum": 0, "maximum": 1_000_000},
    {"type": ["integer", "null"], "multipleOf": 7},
    {"type": "array", "minItems": 2.0, "maxItems": 2.0, "items": {"type": "null"}},
    # strings
    string(r"^\d+$"),
    string(r"^[\w.-]+$"),
    string(r"^\W\D\S$"),
    string(r"^a\/b\-c$"),
    string(r"^(?!x)[a-z]{1,5}$"),
    string(r"^(?=.*[A-Z])(?=.*\d).{4,8}$"),
    string(r"^a(?!b)[a-z]?$"),
    string("a$|^b"),
    string(r"^[a-z-]{1,5}(?<!-)$"),
    string(r"^(?:(?!00)\d{2}){2}$"),
    string(DECIMAL),
    string(DECIMAL_PLACES),
    string(ZOD_EMAIL),
    string(ZOD_HOSTNAME),
    {**string("^a"), "minLength": 2, "maxLength": 3},
    string(""),
    # references
    {"$defs": {"a/b~c d": {"type": "null"}}, "$ref": "#/$defs/a~1b~0c%20d"},
    {"$defs": {"List[int]": {"type": "null"}}, "$ref": "#/$defs/List[int]"},
    {"$defs": {"a": {"$anchor": "here", "type": "null"}}, "$ref": "#here"},
    {"$id": "https://x.org/s", "$defs": {"a": {"type": "null"}}, "$ref": "https://x.org/s#/$defs/a"},
    {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False},
    obj({"a": {"type": "null"}, "b": {"$ref": "#/properties/a", "description": "as a"}}),
    {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}, "maxItems": 2}}, "$ref": "#/$defs/t"},
    # objects
    {**A_OR_B, "minProperties": 1},
    {**A_OR_B, "minProperties": 2, "maxProperties": 2},
    {**A_OR_B, "maxProperties": 1},
    {**A_OR_B, "dependentRequired": {"a": ["b"]}},
    {**A_OR_B, "dependencies": {"a": {"required": ["c"]}}},
    {
        "type": "object",
        "patternProperties": {"^a": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 1,
    },
    {"type": "object", "patternProperties": {"^a": {"type": "null"}, "^b": {"type": "integer"}}},
    {"type": "object", "propertyNames": {"enum": ["x", "y"]}, "additionalProperties": {"type": "null"}},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,3}$"}, "additionalProperties": {"type": "null"}},
    {"type": "object", "propertyNames": {"minLength": 2, "maxLength": 3}},
    {"type": "object", "properties": {"a": {"type": "null"}}, "unevaluatedProperties": False},
    obj(
        {"kind": {"enum": ["x", "y"]}}, **{"if": {"properties": {"kind": {"const": "x"}}}, "then": {"required": ["z"]}}
    ),
    # arrays
    {"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}], "items": False, "minItems": 1},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True},
    {"type": "array", "contains": {"const": 7}},
    # combinations
    {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]},
    {"oneOf": [{"const": 1}, {"const": 2}]},
    {"allOf": [obj({"a": {"type": "null"}}), obj({"b": {"type": "null"}})]},
    {"allOf": [string("^a"), string("b$")]},
    {"oneOf": [obj({"k": {"const": "a"}}), obj({"k": {"const": "b"}})], "discriminator": {"propertyName": "k"}},
    {"oneOf": [{"type": "object", "properties": {"k": {"const": k}}} for k in "ab"]},
    {**A_OR_B, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"oneOf": [string("^a"), string("^b")]},
    {"oneOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 2}]},
    {"not": {"type": ["object", "array"]}},
    {"type": "string", "maxLength": 2, "not": {"enum": ["a", "b"]}},
    {"enum": ["a", "b"], "not": {"const": "a"}},
    {"type": "string", "not": {"pattern": "^a"}},
    {**A_OR_B, "not": {"required": ["a"]}},
]


@pytest.mark.parametrize("schema", KEPT, ids=lambda schema: json.dumps(schema)[:70])
def test_what_is_asked_for_is_kept(schema: Any) -> None:
    assert rewrite_schema(schema).relaxed == ()

    found = answers(schema)

    assert found
    for answer in found:
        jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        (obj({"a": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}}), "properties.a.uniqueItems"),
        ({"patternProperties": {"^a": {"type": "null"}}, "minProperties": 2, "type": "object"}, "minProperties"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"$ref": "https://example.com/other.json"}, "$ref"),
        ({"$ref": "#/$defs/missing"}, "$ref"),
        ({"$defs": {"a": {"not": {"minimum": 3}}}, "items": {"$ref": "#/$defs/a"}}, "$defs.a.not"),
        (string(r"^(a)\1$"), "pattern"),
        (string("("), "pattern"),
        ({"if": {"type": "string"}, "then": {"minLength": 3}}, "if"),
        ({"type": "array", "contains": {"const": 1}, "maxContains": 1}, "contains"),
        ({"enum": [2**70 + 1, 1]}, "enum"),
        ({"const": -(2**63)}, "const"),
        ({"type": "integer", "multipleOf": 10**10}, "multipleOf"),
        ({"type": "integer", "minimum": 10**20}, "minimum"),
        ({"allOf": [{"type": "object"}], "unevaluatedProperties": False}, "unevaluatedProperties"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_cannot_be_kept_is_named(schema: Any, place: str) -> None:
    assert rewrite_schema(schema).relaxed == (place,)
    assert answers(schema, 5) is not None


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ([], "found list"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"properties": []}, "properties must be an object"),
        ({"properties": {"a": 1}}, "properties.a must be an object or a boolean"),
        ({"required": "a"}, "required must be a list"),
        ({"minLength": -1}, "minLength must be a whole number"),
        ({"minimum": "3"}, "minimum must be a number"),
        ({"multipleOf": 0}, "multipleOf must be greater than 0"),
        ({"enum": 3}, "enum must be a list"),
        ({"anyOf": []}, "anyOf must be a non-empty list"),
        ({"type": "string", "pattern": 3}, "pattern must be a string"),
        ({"$ref": 3}, "$ref must be a string"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(schema: Any, said: str) -> None:
    with pytest.raises(NotASchema) as refused:
        rewrite_schema(schema)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "open_ones"),
    [
        (obj({"a": {"type": "null"}}), {"b": 1}),
        (obj({"a": {"anyOf": [obj({"b": {"type": "null"}}), {"type": "null"}]}}), {}),
        ({"allOf": [obj({"a": {"type": "null"}}), obj({"b": {"type": "null"}})]}, {}),
        ({"$defs": {"x": obj({"a": {"type": "null"}})}, "allOf": [{"$ref": "#/$defs/x"}], "description": "d"}, {}),
    ],
)
def test_strict_objects_are_closed(schema: Any, open_ones: Any) -> None:
    del open_ones
    names = {name for answer in answers(schema, strict=True) for name in every_name(answer)}
    assert names <= {"a", "b"}


def every_name(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [*value, *(name for part in value.values() for name in every_name(part))]


def test_a_schema_can_be_closed_and_still_be_relaxed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    found = enforceable("It", schema, strict=False, closed=True)
    assert found.schema["additionalProperties"] is False
    assert found.relaxed == ("properties.a.uniqueItems",)


def test_what_the_schema_says_of_other_properties_counts_in_strict_mode_too() -> None:
    counts = {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}
    found = answers(counts, strict=True)
    assert all(answer for answer in found)
    assert all(isinstance(value, int) for answer in found for value in answer.values())


def test_a_property_that_is_named_first_is_written_first() -> None:
    schema = obj({"z": {"type": "null"}, "a": {"type": "null"}})
    assert {tuple(answer)[:2] for answer in answers(schema)} == {("z", "a")}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (string(DECIMAL), "-12.50"),
        (string(ZOD_EMAIL), "ada.l@example.org"),
        ({**A_OR_B, "dependentRequired": {"a": ["b"]}}, {"b": None}),
        ({**A_OR_B, "dependentRequired": {"a": ["b"]}}, {"a": None, "b": None}),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, 2**62 + 1),
        ({"enum": [BIG]}, BIG),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True}, ["b", "a"]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, 0.001),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 4),
        ({"type": "integer", "minimum": 10**18 + 1}, 10**18 + 1025),
        (string(r"\bcat\b"), "a cat!"),
        (string("^[[a]{2}$"), "[a"),
        (string(r"^\p{Lu}+$"), "ÄÖ"),
        (string(r"^[\S\p{L}]+$"), "aä1"),
        (string(r"^(?<year>[0-9]{4})\u{2d}\cJ$"), "2026-\n"),
    ],
)
def test_what_a_schema_allows_can_be_written(schema: Any, value: Any) -> None:
    assert reaches(schema, value)


@pytest.mark.parametrize(
    ("form", "read"),
    [
        ("date", datetime.date.fromisoformat),
        ("date-time", lambda text: datetime.datetime.fromisoformat(text.upper())),
        ("time", lambda text: datetime.time.fromisoformat(text.upper())),
        ("uuid", uuid.UUID),
        ("ipv4", ipaddress.IPv4Address),
        ("ipv6", ipaddress.IPv6Address),
    ],
)
def test_what_is_written_in_a_format_can_be_read(form: str, read: Callable[[str], object]) -> None:
    for text in answers({"type": "string", "format": form}, 60):
        read(text)


def schemas() -> st.SearchStrategy[Any]:
    """Schemas of all keywords, in any mixture."""
    numbers = st.integers(-5, 9) | st.floats(-5, 9, allow_nan=False).map(lambda x: round(x, 2))
    scalars = st.none() | st.booleans() | numbers | st.sampled_from(["a", "b", "ab", ""]) | st.just(BIG)
    names = st.sampled_from(["a", "b", "c"])

    def object_of(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["object", "array", "string", "number", "integer", "null", ["object", "null"]]),
                "properties": st.dictionaries(names, part, max_size=3),
                "required": st.lists(names, max_size=2, unique=True),
                "additionalProperties": part | st.booleans(),
                "minProperties": st.integers(0, 2),
                "maxProperties": st.integers(0, 3),
                "patternProperties": st.dictionaries(
                    st.sampled_from(["^a", "b$", "^a|b$", "^[a-c]$"]), part, max_size=3
                ),
                "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=1),
                "items": part | st.booleans(),
                "prefixItems": st.lists(part, min_size=1, max_size=2),
                "minItems": st.integers(0, 2),
                "maxItems": st.integers(0, 3),
                "minLength": st.integers(0, 2),
                "maxLength": st.integers(1, 4),
                "pattern": st.sampled_from(["^a", "b$", "^[a-c]{1,3}$", "^(?!ab)", r"^\d+$"]),
                "minimum": numbers,
                "exclusiveMaximum": numbers,
                "multipleOf": st.sampled_from([1, 2, 3, 0.5]),
                "enum": st.lists(scalars, min_size=1, max_size=3),
                "const": scalars,
                "not": part,
                "anyOf": st.lists(part, min_size=1, max_size=2),
                "oneOf": st.lists(part, min_size=1, max_size=2),
                "allOf": st.lists(part, min_size=1, max_size=2),
                "$ref": st.sampled_from(["#/$defs/d", "#"]),
            },
        ).map(lambda schema: dict(list(schema.items())[:5]))

    return st.recursive(object_of(st.booleans()), object_of, max_leaves=4).map(
        lambda schema: {"$defs": {"d": {"type": ["integer", "null"], "maximum": 3}}, **schema}
    )


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas())
def test_no_schema_that_is_kept_gives_an_answer_that_breaks_it(schema: Any) -> None:
    if rewrite_schema(schema).relaxed:
        return
    try:
        found = answers(schema, 6)
    except Impossible:
        return
    for answer in found:
        try:
            jsonschema.validate(answer, schema, jsonschema.Draft202012Validator)
        except RecursionError:  # the validator's, in a schema that refers to itself
            return
