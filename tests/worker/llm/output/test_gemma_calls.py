"""Gemma's calls: only strings are marked, objects and lists nest, and the schema says what the rest is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.llm.output.test_tagged_calls import TOOLS, offered
from tests.worker.llm.output.test_tool_calls import FORMATS, Outcome, outcome

pytestmark = pytest.mark.everyday

MARKS = {"function_gemma": "<escape>", "gemma4": '<|"|>'}
BOTH = pytest.mark.parametrize("name", MARKS)


def read(name: str, calls: str, tools: Any = TOOLS) -> Outcome:
    form = FORMATS[name].tool_format
    assert form is not None
    text = form.start + calls.replace("'", MARKS[name]) + form.end
    whole = outcome(FORMATS[name].stream(tools), [text])
    assert outcome(FORMATS[name].stream(tools), text).comparable == whole.comparable
    return whole


@BOTH
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("text:'a } b, c: {',size:3", {"text": "a } b, c: {", "size": 3}),
        ("text:'5',size:1234567890123456789", {"text": "5", "size": 1234567890123456789}),
        ("text:5", {"text": "5"}),
        ("text:New York, NY,size:3", {"text": "New York, NY", "size": 3}),
        ("done:true,maybe:null", {"done": True, "maybe": None}),
        ("tags:['a, b',5,c d]", {"tags": ["a, b", "5", "c d"]}),
        ("free:{a:{b:[1,{}]},'c d':'e'}", {"free": {"a": {"b": [1, {}]}, "c d": "e"}}),
        ('text:"a\\nb"', {"text": "a\nb"}),
        ("text:'a\nb', size: 3 ", {"text": "a\nb", "size": 3}),
        ("size:many", {"size": "many"}),
        ("size:'3',done:'true'", {"size": 3, "done": True}),
        ("", {}),
    ],
)
def test_values_nest_and_are_what_the_schema_says(name: str, arguments: str, expected: Any) -> None:
    whole = read(name, f"call:write{{{arguments}}}")
    assert whole.parsed == [("write", expected)]
    assert whole.content == ""


@BOTH
@pytest.mark.parametrize(
    "calls", ["call:write{text:'a", "call:write{size:3", "call:write{size}", "call:other{}", "write", ""]
)
def test_what_is_no_whole_call_of_a_tool_is_text(name: str, calls: str) -> None:
    whole = read(name, calls)
    assert whole.calls == []
    assert calls.replace("'", MARKS[name]) in whole.content


@BOTH
def test_of_several_calls_the_one_that_is_not_whole_is_text(name: str) -> None:
    whole = read(name, "call:now{}call:write{size:1}call:write{size:")
    assert whole.parsed == [("now", {}), ("write", {"size": 1})]
    assert whole.content == "call:write{size:"


def written(value: Any, mark: str) -> str:
    """As Gemma 4's template writes it."""
    if isinstance(value, str):
        return mark + value + mark
    if isinstance(value, dict):
        return "{" + ",".join(f"{mark}{key}{mark}:{written(each, mark)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(each, mark) for each in value) + "]"
    return json.dumps(value)


_texts = st.text(st.characters(exclude_characters="<|>", exclude_categories=["Cs"]))
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(MARKS)), st.dictionaries(_texts, _values, max_size=4))
def test_any_arguments_come_out_as_the_template_wrote_them(name: str, arguments: dict[str, Any]) -> None:
    form = FORMATS[name].tool_format
    assert form is not None
    text = f"{form.start}call:free{written(arguments, MARKS[name])}{form.end}"
    assert outcome(FORMATS[name].stream([offered("free")]), [text]).parsed == [("free", arguments)]
