"""Values that models write as text: the tool's schema says what they are, and no digit and no character is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.worker.llm.output.argument_values import converted, property_schema

pytestmark = pytest.mark.everyday

INTEGER, NUMBER, STRING, BOOLEAN = ({"type": name} for name in ("integer", "number", "string", "boolean"))
OBJECT, ARRAY, NULL = ({"type": name} for name in ("object", "array", "null"))
ROOT: Any = {
    "$defs": {
        "Days": INTEGER,
        "Unit": {"enum": ["C", "F"]},
        "a/b": BOOLEAN,
        "Tree": {"anyOf": [{"$ref": "#/$defs/Tree"}, NULL]},
    },
    "definitions": {"Old": {"type": ["array", "null"]}},
}


def any_of(*schemas: Any) -> Any:
    return {"anyOf": list(schemas)}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        # Numbers of any size, with all their digits
        ("1234567890123456789", INTEGER, "1234567890123456789"),
        ("-" + "9" * 5000, INTEGER, "-" + "9" * 5000),
        ("5", INTEGER, "5"),
        (" 5\n", INTEGER, "5"),
        ("5.0", INTEGER, "5"),
        ("1e3", INTEGER, "1000"),
        ("+5", INTEGER, "5"),
        ("007", INTEGER, "7"),
        ("5", NUMBER, "5"),
        ("5.0", NUMBER, "5.0"),
        ("0.10000000000000000000000001", NUMBER, "0.10000000000000000000000001"),
        ("1e400", NUMBER, "1e400"),
        (".5", NUMBER, "0.5"),
        ("5.5", INTEGER, '"5.5"'),
        ("many", INTEGER, '"many"'),
        ("1,000", INTEGER, '"1,000"'),
        ("1_000", INTEGER, '"1_000"'),
        ("NaN", NUMBER, '"NaN"'),
        ("Infinity", NUMBER, '"Infinity"'),
        ("1e99999999999999999999", INTEGER, '"1e99999999999999999999"'),
        ("1e999999", INTEGER, '"1e999999"'),
        ("٣", INTEGER, '"٣"'),
        ("", INTEGER, '""'),
        # Text stays as it is, whatever it looks like
        ("5", STRING, '"5"'),
        ("null", STRING, '"null"'),
        ("None", STRING, '"None"'),
        ("true", STRING, '"true"'),
        ('{"a": 1}', STRING, '"{\\"a\\": 1}"'),
        ('"quoted"', STRING, '"\\"quoted\\""'),
        (" a\n b ", STRING, '" a\\n b "'),
        ("a &lt; b &amp; c", STRING, '"a &lt; b &amp; c"'),
        ("🙂 漢字 \x00", STRING, '"🙂 漢字 \\u0000"'),
        ("half \ud83d", STRING, '"half \\ud83d"'),
        ("", STRING, '""'),
        ("2024", {"pattern": "^[0-9]+$"}, '"2024"'),
        ("abc", {"type": "string", "maxLength": 2}, '"abc"'),
        # Booleans and null
        ("true", BOOLEAN, "true"),
        ("True", BOOLEAN, "true"),
        ("FALSE", BOOLEAN, "false"),
        ("1", BOOLEAN, "true"),
        ("off", BOOLEAN, "false"),
        ("maybe", BOOLEAN, '"maybe"'),
        ("null", NULL, "null"),
        ("None", NULL, "null"),
        ("yes", any_of(BOOLEAN, STRING), '"yes"'),
        # Several types
        ("5", any_of(INTEGER, NULL), "5"),
        ("null", any_of(INTEGER, NULL), "null"),
        ("None", any_of(STRING, NULL), "null"),
        ("none", any_of(STRING, NULL), '"none"'),
        ("none", any_of(INTEGER, NULL), "null"),
        ("5", any_of(STRING, NULL), '"5"'),
        ("5", any_of(STRING, INTEGER), "5"),
        ("007", any_of(STRING, INTEGER), '"007"'),
        ("5", {"type": ["integer", "null"]}, "5"),
        ("x", {"type": ["integer", "null"]}, '"x"'),
        ("5", {"oneOf": [BOOLEAN, INTEGER]}, "5"),
        ("5", {"allOf": [{"minimum": 1}, INTEGER]}, "5"),
        ("5", {"type": "string", "anyOf": [{"pattern": "a"}, {"pattern": "5"}]}, '"5"'),
        ("null", {"type": "integer", "nullable": True}, "null"),
        # Enum and const of any type
        ("2", {"enum": [1, 2, 3]}, "2"),
        ("2.0", {"enum": [1, 2, 3]}, "2.0"),
        ("2", {"const": 2}, "2"),
        ("2", {"enum": ["1", "2"]}, '"2"'),
        ("2", {"enum": ["2", 3]}, '"2"'),
        ("true", {"enum": [True, "auto"]}, "true"),
        ("1", {"enum": [1, True]}, "1"),
        ("null", {"enum": ["a", None]}, "null"),
        ("null", {"enum": ["null", "b"]}, '"null"'),
        ("4", {"enum": [1, 2, 3]}, "4"),
        ("[1, 2]", {"const": [1, 2]}, "[1, 2]"),
        (" celsius ", {"enum": ["celsius"]}, '"celsius"'),
        ("kelvin", {"type": "string", "enum": ["celsius"]}, '"kelvin"'),
        # Objects and arrays, as JSON or as Python's literals
        ('{"a": [1, 2.50]}', OBJECT, '{"a": [1, 2.50]}'),
        ("{'a': True, 'b': None, 'c': (1, 2)}", OBJECT, '{"a": true, "b": null, "c": [1, 2]}'),
        ("{'a': true, 'b': null}", OBJECT, '{"a": true, "b": null}'),
        ('{"a": 1,}', OBJECT, '{"a": 1}'),
        ('{"re": "\\d+"}', OBJECT, '{"re": "\\\\d+"}'),
        ('{"a": "x\ny"}', OBJECT, '{"a": "x\\ny"}'),
        ("['a', 'b']", ARRAY, '["a", "b"]'),
        ("[1, 2]", any_of({"type": "array", "items": INTEGER}, NULL), "[1, 2]"),
        ("[1, 2]", OBJECT, '"[1, 2]"'),
        ("{1, 2}", OBJECT, '"{1, 2}"'),
        ("{'a': print(1)}", OBJECT, "\"{'a': print(1)}\""),
        ("[NaN]", ARRAY, '"[NaN]"'),
        ("[" * 100_000, ARRAY, json.dumps("[" * 100_000)),
        ('["\ud83d"]', ARRAY, '["\\ud83d"]'),
        # References
        ("5", {"$ref": "#/$defs/Days"}, "5"),
        ("5", any_of({"$ref": "#/$defs/Days"}, NULL), "5"),
        ("[]", {"$ref": "#/definitions/Old"}, "[]"),
        ("C", {"$ref": "#/$defs/Unit"}, '"C"'),
        ("true", {"$ref": "#/$defs/a~1b"}, "true"),
        ("null", {"$ref": "#/$defs/Tree"}, "null"),
        ("5", {"$ref": "#/$defs/Missing"}, "5"),
        ("5", {"$ref": "https://example.org/days"}, "5"),
        # No schema, or one that says nothing, or nonsense
        ("5", True, "5"),
        ("5", {}, "5"),
        ("True", {"description": "whatever"}, "true"),
        ("{'a': 1}", {}, '{"a": 1}'),
        ("Paris", {}, '"Paris"'),
        ("on", {}, '"on"'),
        ("007", {}, '"007"'),
        ("5", False, '"5"'),
        ("5", {"type": 7}, "5"),
        ("5", {"type": "bigint", "enum": "x", "anyOf": 3}, "5"),
        ("5", {"type": "int"}, "5"),
        ("5", {"type": "str"}, '"5"'),
    ],
)
def test_a_value_becomes_what_the_schema_says(text: str, schema: Any, value: str) -> None:
    assert converted(text, schema, ROOT) == value
    assert converted(text, schema, ROOT).encode()


def test_a_schema_that_refers_to_itself_on_many_ways_costs_no_more_than_another() -> None:
    root: Any = {"$defs": {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 4} for i in range(40)}}
    root["$defs"]["a40"] = {"anyOf": [{"$ref": "#/$defs/a0"}, NULL]}
    assert converted("null", {"$ref": "#/$defs/a0"}, root) == "null"
    assert property_schema("x", {"$ref": "#/$defs/a0"}, root) is True


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ({"properties": {"x": INTEGER}}, INTEGER),
        ({"properties": {"y": INTEGER}}, True),
        ({"allOf": [{"properties": {"y": STRING}}, {"properties": {"x": INTEGER}}]}, INTEGER),
        ({"anyOf": [{"properties": {"x": STRING}}, {"properties": {"x": NULL}}]}, any_of(STRING, NULL)),
        ({"$ref": "#/$defs/Args"}, INTEGER),
        ({"patternProperties": {"(": STRING, "^x": INTEGER}}, INTEGER),
        ({"additionalProperties": INTEGER}, INTEGER),
        ({"additionalProperties": False}, True),
        (None, True),
        ({"properties": ["x"]}, True),
    ],
)
def test_a_property_is_found_wherever_the_schema_speaks_of_it(schema: Any, found: Any) -> None:
    assert property_schema("x", schema, {"$defs": {"Args": {"properties": {"x": INTEGER}}}}) == found


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_values, st.booleans())
def test_any_value_comes_back_as_it_was_whichever_way_the_template_writes_it(value: Any, python: bool) -> None:
    names = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    schema = {"type": names.get(type(value), "object")}
    written = value if isinstance(value, str) else repr(value) if python else json.dumps(value)
    assert json.loads(converted(written, schema, schema)) == value


@given(st.text(), st.sampled_from([INTEGER, NUMBER, BOOLEAN, OBJECT, ARRAY, NULL, {}, {"enum": [1, "a", None]}]))
def test_any_text_becomes_json_whatever_the_schema(text: str, schema: Any) -> None:
    json.loads(converted(text, schema, schema))
