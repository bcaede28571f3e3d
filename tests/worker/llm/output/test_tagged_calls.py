"""Calls written as text between tags: every family, values of any kind, and models that leave the format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.llm.output.test_tool_calls import FORMATS, Outcome, outcome

pytestmark = pytest.mark.everyday


@dataclass(frozen=True)
class Way:
    """Spelling of a call in one family's chat template."""

    start: str
    end: str
    call: str
    call_end: str
    argument: str
    argument_end: str

    def inner(self, name: str, **values: str) -> str:
        arguments = [self.argument.format(key) + value + self.argument_end for key, value in values.items()]
        return self.call.format(name) + "".join(arguments) + self.call_end

    def written(self, name: str, **values: str) -> str:
        return self.start + self.inner(name, **values) + self.end


WAYS = {
    "qwen3_coder": Way(
        "<tool_call>\n", "\n</tool_call>", "<function={}>\n", "</function>", "<parameter={}>\n", "\n</parameter>\n"
    ),
    "minimax_m2": Way(
        "<minimax:tool_call>\n", "</minimax:tool_call>", '<invoke name="{}">\n', "</invoke>\n",
        '<parameter name="{}">', "</parameter>\n",
    ),
    "muse_spark": Way(
        "<atem:function_calls>\n", "</atem:function_calls>", '<atem:invoke name="{}">\n', "</atem:invoke>\n",
        '<atem:parameter name="{}">', "</atem:parameter>\n",
    ),
    "minicpm5": Way("", "", '<function name="{}">', "</function>", '<param name="{}">', "</param>"),
    "glm47": Way("<tool_call>", "</tool_call>", "{}", "", "<arg_key>{}</arg_key><arg_value>", "</arg_value>"),
    "laguna": Way("<tool_call>", "</tool_call>", "{}\n", "", "<arg_key>{}</arg_key>\n<arg_value>", "</arg_value>\n"),
    "longcat": Way(
        "<longcat_tool_call>", "</longcat_tool_call>", "{}\n", "",
        "<longcat_arg_key>{}</longcat_arg_key>\n<longcat_arg_value>", "</longcat_arg_value>\n",
    ),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", WAYS)
BARE = pytest.mark.parametrize("name", ["qwen3_coder", "minimax_m2", "muse_spark"])


def offered(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "$defs": {"Count": {"type": "integer"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    offered(
        "write",
        path={"type": "string"},
        text={"type": "string"},
        size={"type": "integer"},
        maybe={"anyOf": [{"type": "integer"}, {"type": "null"}]},
        level={"enum": [1, 2, 3]},
        done={"type": "boolean"},
        count={"$ref": "#/$defs/Count"},
        tags={"type": "array", "items": {"type": "string"}},
    ),
    offered("now"),
]


def read(name: str, text: str, *, cut: bool = False) -> Outcome:
    """The outcome, which is the same for the whole text at once and for single characters."""
    whole = outcome(FORMATS[name].stream(TOOLS), [text], cut=cut)
    assert outcome(FORMATS[name].stream(TOOLS), text, cut=cut).comparable == whole.comparable
    return whole


@ALL
def test_values_are_converted_by_the_tools_schema(name: str) -> None:
    values = {
        "size": "1234567890123456789", "maybe": "5", "level": "2", "done": "True", "count": "7", "text": "5",
        "tags": "['a', 'b']", "unknown": "x",
    }  # fmt: skip
    [(_, arguments)] = read(name, WAYS[name].written("write", **values)).calls
    assert json.loads(arguments) == {
        "size": 1234567890123456789, "maybe": 5, "level": 2, "done": True, "count": 7, "text": "5",
        "tags": ["a", "b"], "unknown": "x",
    }  # fmt: skip


@ALL
def test_a_value_that_does_not_convert_is_a_string_of_a_call(name: str) -> None:
    whole = read(name, WAYS[name].written("write", size="many", done="perhaps", tags="a, b"))
    assert whole.parsed == [("write", {"size": "many", "done": "perhaps", "tags": "a, b"})]


HARD = [
    "a </parameter> b", "</param></arg_value></longcat_arg_value></atem:parameter>.", "a\n</parameter>\nb",
    "x </function> y", "</invoke>", "<function=now>", "a <parameter=size>", '<parameter name="size">',
    "</tool_call>", "see </tool_call> and <tool_call>", "<minimax:tool_call></minimax:tool_call>",
    "</atem:function_calls>", "</longcat_tool_call>.", "&lt;b&gt; &amp; <b>", "  indented\n    code\n", "\ttab",
    "🙂 漢字 \u2028", "", "null", "None", "007", "{\"a\": 1}", "</think>", "<think>", "[TOOL_CALLS]",
]  # fmt: skip


@ALL
@pytest.mark.parametrize("value", HARD)
def test_no_character_of_a_text_is_lost(name: str, value: str) -> None:
    for values in ({"text": value}, {"text": value, "size": "3"}, {"path": "a", "text": value, "size": "3"}):
        whole = read(name, f"So. {WAYS[name].written('write', **values)}\nDone.")
        expected = {key: int(text) if key == "size" else text for key, text in values.items()}
        assert whole.parsed == [("write", expected)]
        assert whole.content.split() == ["So.", "Done."]


@ALL
def test_a_value_may_hold_a_whole_call(name: str) -> None:
    way = WAYS[name]
    example = f"Write\n{way.written('write', path='a', size='1')}\nor {way.written('now')}."
    whole = read(name, f"{way.written('write', text=example, size='2')}\nDone.")
    assert whole.parsed == [("write", {"text": example, "size": 2})]
    assert whole.content == "Done."


@ALL
def test_a_call_in_a_value_is_not_made_if_the_answer_is_cut_within_it(name: str) -> None:
    way = WAYS[name]
    if name == "minicpm5":
        return
    example = f"Write {way.written('now')} or {way.written('write', size='1')}"
    text = way.written("write", text=f"{example} END").split(" END")[0]
    for cut in (True, False):
        whole = read(name, text, cut=cut)
        assert (whole.calls, whole.content) == ([], text)


@ALL
def test_several_calls_are_made_one_after_the_other(name: str) -> None:
    way = WAYS[name]
    whole = read(name, f"{way.written('now')}\n{way.written('write', size='1')}\n{way.written('now')}")
    assert whole.parsed == [("now", {}), ("write", {"size": 1}), ("now", {})]
    if way.call_end and way.start:
        calls = way.inner("now") + "\n" + way.inner("write", size="1")
        assert read(name, way.start + calls + way.end).parsed == [("now", {}), ("write", {"size": 1})]


@BARE
def test_a_call_without_the_marks_around_it_is_a_call(name: str) -> None:
    way = WAYS[name]
    bare = way.inner("write", size="1", text="a </function> b")
    call = ("write", {"size": 1, "text": "a </function> b"})
    for behind in ("", "\nDone.", way.end, f"\n{way.end}\nDone."):
        whole = read(name, f"So.\n\n{bare}{behind}")
        assert whole.parsed == [call]
        assert whole.content.split() == ["So.", *behind.replace(way.end, "").split()]
    assert read(name, f"{bare}\n{bare}{way.end}").parsed == [call, call]


@BARE
@pytest.mark.parametrize("text", ["{0}x> is", "{0}\nx", "{0}{1}", "{0}", "{0}now", "{0}" + "x" * 500, "{0}x>{0}y>"])
def test_a_tag_that_begins_no_call_of_a_tool_is_content(name: str, text: str) -> None:
    form = FORMATS[name].tool_format
    assert form is not None
    text = "I write " + text.format(form.bare_start, form.end)
    for cut in (True, False):
        whole = read(name, text, cut=cut)
        assert (whole.content, whole.calls) == (text, [])


def test_content_with_a_tag_in_it_does_not_wait_for_the_end_of_the_answer() -> None:
    parts = FORMATS["qwen3_coder"].stream(TOOLS)
    given_text = "".join(part.text for part in parts.push("Write <function=x> and go on") if hasattr(part, "text"))
    assert given_text == "Write <function=x> and go on"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (
            "<function=write>\n<parameter=text>\na\n<parameter=size>\n3\n</parameter>\n</function>",
            {"text": "a", "size": 3},
        ),
        ("<function=write>\n<parameter=text>\na\n</function>", {"text": "a"}),
        ("<function=write>\n<parameter=text>\na\n</parameter>", {"text": "a"}),
        ("<function=write>\n<parameter=text>a</parameter></function>", {"text": "a"}),
        ("<function=write>", {}),
        ('{"name": "write", "arguments": {"size": 3}}', {"size": 3}),
    ],
)
def test_tags_that_qwen_forgets_are_forgiven(text: str, arguments: Any) -> None:
    whole = read("qwen3_coder", f"<tool_call>\n{text}\n</tool_call>\nDone.")
    assert whole.parsed == [("write", arguments)]
    assert whole.content == "Done."


@ALL
@pytest.mark.parametrize("cut", [True, False])
def test_a_call_that_is_cut_is_text_as_it_was_written(name: str, cut: bool) -> None:
    way = WAYS[name]
    text = way.written("write", text="a <b> c", size="12")
    for length in range(len(text.removesuffix(way.end).rstrip())):
        whole = read(name, text[:length], cut=cut)
        if whole.calls:
            assert not cut
            assert whole.parsed[0][1].items() >= {"text": "a <b> c"}.items()
        else:
            assert whole.content == text[:length]


def test_a_required_argument_that_is_missing_at_the_answers_end_was_cut() -> None:
    write = offered("write", text={"type": "string"}, size={"type": "integer"})
    write["function"]["parameters"]["required"] = ["text", "size"]
    text = "<tool_call>write<arg_key>text</arg_key><arg_value>a</arg_value>"
    assert outcome(FORMATS["glm47"].stream([write]), [text]).calls == []


def test_cdata_is_how_minicpm_writes_markup() -> None:
    text = '<function name="write"><param name="text"><![CDATA[a </param> & ]]> <b>\n]]></param></function>'
    assert read("minicpm5", text).parsed == [("write", {"text": "a </param> & ]]> <b>\n"})]


_pieces = ["a", "\n", " ", "<b>", "</parameter>", "</function>", "<parameter=x>", "</tool_call>", "1", "🙂", '"']
_texts = st.lists(st.sampled_from(_pieces)).map("".join)


@given(st.sampled_from(sorted(WAYS)), _texts, st.integers(), st.integers(1, 9))
def test_any_call_that_is_read_has_the_text_that_was_written(name: str, value: str, number: int, size: int) -> None:
    text = WAYS[name].written("write", size=str(number), text=value)
    whole = outcome(FORMATS[name].stream(TOOLS), [text[at : at + size] for at in range(0, len(text), size)])
    assert whole.comparable == outcome(FORMATS[name].stream(TOOLS), [text]).comparable
    if "<" not in value.replace("<b>", "") and not (value.startswith("\n") and value.endswith("\n")):
        assert whole.parsed == [("write", {"size": number, "text": value})]
