"""Tool calls: every family that mlx-lm parses, JSON as it grows, and what is no call comes back as text."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.worker.llm.output.parser import Content, OutputFormat, Reasoning
from localapi.worker.llm.output.recognition import _OwnParser
from localapi.worker.llm.output.sections import CallArguments, CallStart

pytestmark = pytest.mark.everyday

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from localapi.worker.llm.output.parser import OutputItem, OutputParser


@dataclass
class Marks:
    """A model's marks, as TokenizerWrapper reports them."""

    tool_call_start: str | None = None
    tool_call_end: str | None = None
    tool_parser: Any = None
    think_start: str | None = None
    think_end: str | None = None
    structural_markers: Sequence[str] = ()
    response_transitions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    response_initial_state: str | None = None

    @property
    def has_thinking(self) -> bool:
        return self.think_start is not None

    @property
    def has_tool_calling(self) -> bool:
        return self.tool_call_start is not None


def family(name: str) -> OutputFormat:
    """The format of a model that calls as this family does, and thinks."""
    parser = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    return OutputFormat(
        Marks(parser.tool_call_start, parser.tool_call_end, parser.parse_tool_call, "<think>", "</think>")
    )


def tool(name: str, **types: str) -> dict[str, Any]:
    properties = {argument: {"type": kind} for argument, kind in types.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = [tool("get_weather", city="string", days="integer"), tool("add", a="number", b="number"), tool("now")]


@dataclass
class Outcome:
    """The parts of a whole answer, put together."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    order: str = ""

    def add(self, part: OutputItem) -> None:
        match part:
            case Content(text):
                self.content += text
            case Reasoning(text):
                self.reasoning += text
            case CallStart(index, call_id, name):
                assert index == len(self.calls)
                self.ids.append(call_id)
                self.calls.append((name, ""))
            case CallArguments(index, text):
                assert index == len(self.calls) - 1
                self.calls[index] = (self.calls[index][0], self.calls[index][1] + text)
        assert isinstance(part, CallStart) or part.text
        kind = type(part).__name__[0] if not isinstance(part, CallStart | CallArguments) else type(part).__name__[4]
        self.order += "" if self.order.endswith(kind) and kind != "S" else kind

    @property
    def parsed(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments)) for name, arguments in self.calls]

    @property
    def comparable(self) -> tuple[object, ...]:
        return self.content, self.reasoning, self.calls, self.order


def outcome(parts: OutputParser, pieces: Iterable[str], *, cut: bool = False) -> Outcome:
    whole = Outcome()
    for piece in pieces:
        for part in parts.push(piece):
            whole.add(part)
    for part in parts.finish(cut=cut):
        whole.add(part)
    assert parts.called == bool(whole.calls)
    assert len(set(whole.ids)) == len(whole.ids)
    return whole


def read(form: OutputFormat, text: str, *, cut: bool = False) -> Outcome:
    """The outcome, which is the same for the whole text at once and for single characters."""
    whole = outcome(form.stream(TOOLS), [text], cut=cut)
    assert outcome(form.stream(TOOLS), text, cut=cut).comparable == whole.comparable
    return whole


PARIS = [("get_weather", {"city": "Paris", "days": 3})]
SUM = ("add", {"a": 1, "b": 2.5})
SAMPLES = {
    "json_tools": (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>',
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2.5}}\n</tool_call>',
    ),
    "mistral": (
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 3}',
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2.5}',
    ),
    "pythonic": (
        '<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>',
        "<|tool_call_start|>[add(a=1, b=2.5)]<|tool_call_end|>",
    ),
    "glm47": (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
        "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>",
        "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n"
        "<arg_key>b</arg_key>\n<arg_value>2.5</arg_value>\n</tool_call>",
    ),
    "laguna": (
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
        "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>",
        "<tool_call>add<arg_key>a</arg_key><arg_value>1</arg_value><arg_key>b</arg_key><arg_value>2.5</arg_value></tool_call>",
    ),
    "longcat": (
        "<longcat_tool_call>get_weather\n<longcat_arg_key>city</longcat_arg_key>\n"
        "<longcat_arg_value>Paris</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n"
        "<longcat_arg_value>3</longcat_arg_value>\n</longcat_tool_call>",
        '<longcat_tool_call>{"name": "add", "arguments": {"a": 1, "b": 2.5}}</longcat_tool_call>',
    ),
    "qwen3_coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "</function>\n</tool_call>",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2.5\n</parameter>\n</function>\n</tool_call>",
    ),
    "kimi_k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris", "days": 3}<|tool_call_end|><|tool_calls_section_end|>',
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>"
        '{"a": 1, "b": 2.5}<|tool_call_end|><|tool_calls_section_end|>',
    ),
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|>'
        '<|open|>argument key="city" type="string"<|sep|>Paris<|close|>argument<|sep|>'
        '<|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|>'
        "<|close|>call<|sep|><|close|>tools<|sep|>",
        '<|open|>tools<|sep|><|open|>call tool="add" index="2"<|sep|><|open|>json type="object"<|sep|>'
        '{"a": 1, "b": 2.5}<|close|>json<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    ),
    "function_gemma": (
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>",
        "<start_function_call>call:add{a:1,b:2.5}<end_function_call>",
    ),
    "gemma4": (
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>',
        "<|tool_call>call:add{a:1,b:2.5}<tool_call|>",
    ),
    "minicpm5": (
        '<function name="get_weather"><param name="city">Paris</param><param name="days">3</param></function>',
        '<function name="add"><param name="a">1</param><param name="b">2.5</param></function>',
    ),
    "minimax_m2": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>',
        '<minimax:tool_call>\n<invoke name="add">\n<parameter name="a">1</parameter>\n'
        '<parameter name="b">2.5</parameter>\n</invoke>\n</minimax:tool_call>',
    ),
    "muse_spark": (
        '<atem:function_calls>\n<atem:invoke name="get_weather">\n<atem:parameter name="city">Paris</atem:parameter>\n'
        '<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n</atem:function_calls>',
        '<atem:function_calls><atem:invoke name="add"><atem:parameter name="a">1</atem:parameter>'
        '<atem:parameter name="b">2.5</atem:parameter></atem:invoke></atem:function_calls>',
    ),
}
FAMILIES = pytest.mark.parametrize("name", SAMPLES)
JSON = family("json_tools")


@FAMILIES
def test_every_family_calls_after_thought_and_content(name: str) -> None:
    first, second = SAMPLES[name]
    whole = read(family(name), f"<think>\nWhich city?\n</think>\n\nLet me see.\n\n{first}\n{second}\n")
    assert (whole.reasoning, whole.content) == ("Which city?", "Let me see.")
    assert whole.parsed == [*PARIS, SUM]
    assert whole.order == "RCSASA"


@FAMILIES
def test_without_tools_a_call_is_content_marks_included(name: str) -> None:
    form, text = family(name), SAMPLES[name][0]
    assert outcome(form.stream(), text).content == text
    assert outcome(form.stream(TOOLS, "none"), text).content == text


@FAMILIES
def test_a_section_that_is_no_call_is_content_marks_included(name: str) -> None:
    parser = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    text = f"I use {parser.tool_call_start} so <so> {parser.tool_call_end} and"
    if parser.tool_call_end:
        text += " go on."
    whole = read(family(name), text)
    assert (whole.content, whole.calls) == (text, [])


@FAMILIES
def test_a_call_that_is_cut_is_text_or_what_came_of_it(name: str) -> None:
    form, text = family(name), SAMPLES[name][0]
    for length in range(len(text)):
        parts = form.stream(TOOLS)
        whole = outcome(parts, [text[:length]], cut=True)
        if not parts.called:
            assert whole.content == text[:length]
        elif parts.broken_call:
            assert '{"city": "Paris", "days": 3}'.startswith(whole.calls[0][1])
        else:
            assert whole.parsed == PARIS
        assert outcome(form.stream(TOOLS), text[:length], cut=True).comparable == whole.comparable


@FAMILIES
def test_a_call_in_an_unfinished_thought_is_a_call_and_content_follows(name: str) -> None:
    if name == "mistral":  # nothing follows there
        return
    whole = read(family(name), f"<think>\nI know.\n{SAMPLES[name][0]}\n</think>\n\nSo it is.")
    assert (whole.reasoning, whole.parsed, whole.content) == ("I know.", PARIS, "So it is.")


@FAMILIES
def test_a_thought_about_a_mark_stays_a_thought(name: str) -> None:
    parser = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    whole = read(
        family(name), f"<think>\nWhat is {parser.tool_call_start}?\n</think>\n\nLet me see. {SAMPLES[name][0]}"
    )
    assert (whole.reasoning, whole.content) == (f"What is {parser.tool_call_start}?", "Let me see.")
    assert whole.parsed == PARIS


@FAMILIES
def test_a_call_whose_name_is_no_tools_is_text(name: str) -> None:
    text = SAMPLES[name][0].replace("get_weather", "get_climate")
    whole = read(family(name), text)
    assert (whole.content, whole.calls) == (text, [])


@pytest.mark.parametrize("name", ["glm47", "laguna"])
def test_a_sentence_about_a_tool_is_no_call(name: str) -> None:
    text = "<tool_call>get_weather is a tool</tool_call>"
    assert read(family(name), text).content == text
    assert read(family(name), "<tool_call>now</tool_call>").parsed == [("now", {})]


def test_an_end_that_the_model_meant_needs_no_end_mark() -> None:
    for name, (text, _) in SAMPLES.items():
        parser = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
        assert read(family(name), text.removesuffix(parser.tool_call_end)).parsed == PARIS


def test_several_calls_in_one_section_are_all_called() -> None:
    samples = {
        "json_tools": '<tool_call>[{"name": "now"}, {"name": "add", "arguments": {"a": 1}}]</tool_call>',
        "mistral": '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "add", "arguments": {"a": 1}}]',
        "pythonic": "<|tool_call_start|>[now(), add(a=1)]<|tool_call_end|>",
        "qwen3_coder": "<tool_call>\n<function=now>\n</function>\n<function=add>\n"
        "<parameter=a>1</parameter>\n</function>\n</tool_call>",
        "minimax_m2": '<minimax:tool_call><invoke name="now"></invoke>\n<invoke name="add">'
        '<parameter name="a">1</parameter></invoke></minimax:tool_call>',
        "gemma4": "<|tool_call>call:now{}call:add{a:1}<tool_call|>",
    }
    for name, text in samples.items():
        assert read(family(name), text).parsed == [("now", {}), ("add", {"a": 1})], name


def test_of_several_calls_only_the_broken_one_is_text() -> None:
    good, bad = '<|open|>call tool="now"<|sep|><|close|>call<|sep|>', "<|open|>call<|sep|><|close|>call<|sep|>"
    whole = read(family("kimi_k3"), f"<|open|>tools<|sep|>{good}{bad}<|close|>tools<|sep|>")
    assert (whole.parsed, whole.content) == ([("now", {})], bad)


def test_the_models_own_id_is_kept_once_in_a_conversation_and_others_have_the_familys_shape() -> None:
    first = "functions.get_weather:0"
    assert read(family("kimi_k2"), SAMPLES["kimi_k2"][0]).ids == [first]
    assert outcome(family("kimi_k2").stream(TOOLS), [SAMPLES["kimi_k2"][0] * 2]).ids[0] == first
    again = outcome(family("kimi_k2").stream(TOOLS, taken=[first]), [SAMPLES["kimi_k2"][0]]).ids
    assert again == ["functions.get_weather:1"]
    nine = read(family("mistral"), '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]')
    assert all(len(each) == 9 and each.isalnum() for each in nine.ids)
    assert len({*nine.ids}) == 2
    openai = read(family("json_tools"), '<tool_call>{"name": "now", "arguments": {}}</tool_call>')
    assert len(openai.ids[0]) == len("call_") + 24


# --- JSON as it grows ---

FORMS = [
    '{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}',
    '{"arguments": {"a": 1, "b": [2, {"c": "}"}]}, "name": "add"}',
    '{"name": "add", "parameters": {"a": 1, "b": [2, {"c": "}"}]}}',
    '{ "id" : "x{" , "name" :\n"add"\t, "arguments" : {"a": 1, "b": [2, {"c": "}"}]} , "more": [{}, 1, null] }',
    '{"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": [2, {\\"c\\": \\"}\\"}]}"}',
    '[{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}]',
    '{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}',
    '{"name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}}',
    '{"type": "function", "name": "add", "arguments": {"a": 1, "b": [2, {"c": "}"}]}}',
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", ["", "\n", "  \n\n"])
def test_json_calls_in_all_forms_that_models_write(form: str, around: str) -> None:
    whole = read(JSON, f"<tool_call>{around}{form}{around}</tool_call>")
    assert whole.parsed == [("add", {"a": 1, "b": [2, {"c": "}"}]})]
    assert whole.content == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"s": "a </tool_call> \\" \\\\"}', {"s": 'a </tool_call> " \\'}),
        ('{"s": "two\nlines\t"}', {"s": "two\nlines\t"}),
        ('"{\\"s\\": \\"two\\nlines\\"}"', {"s": "two\nlines"}),
        ('{"s": "\\ud83d\\ude42 🙂 \\u00e9"}', {"s": "🙂 🙂 é"}),
        ('{"s": "\\ud83d"}', {"s": "\ud83d"}),
        ('"{\\"s\\": \\"\\ud83d\\"}"', {"s": "\ud83d"}),
        ("null", {}),
        ('""', {}),
        ("{}", {}),
        (' { "a" : 1 } ', {"a": 1}),
    ],
)
def test_json_arguments_come_out_as_valid_json_that_can_be_sent(arguments: str, expected: object) -> None:
    whole = read(JSON, f'<tool_call>{{"name": "add", "arguments": {arguments}}}</tool_call>')
    assert whole.parsed == [("add", expected)]
    assert whole.calls[0][1].encode()


def test_a_call_without_arguments_has_none() -> None:
    assert read(JSON, '<tool_call>{"name": "now"}</tool_call>').parsed == [("now", {})]


def test_name_and_arguments_are_given_as_soon_as_they_are_there() -> None:
    parts = JSON.stream(TOOLS)
    assert parts.push('<tool_call>\n{"name": "add') == []
    (start,) = parts.push('"')
    assert isinstance(start, CallStart)
    assert (start.index, start.name, parts.state) == (0, "add", "tool")
    assert parts.push(', "arguments": {"a"') == [CallArguments(0, '{"a"')]
    assert parts.push(": 1") == [CallArguments(0, ": 1")]
    assert parts.push("}}\n</tool") == [CallArguments(0, "}")]
    assert (parts.complete_calls, parts.state) == (1, "tool")
    assert parts.push("_call>") == []
    assert (parts.state, parts.called, parts.broken_call) == ("content", True, False)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>please</tool_call>",
        "<tool_call></tool_call> and",
        "<tool_call>[]</tool_call> and",
        "<tool_call>{}</tool_call> and",
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud83d", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\x", "arguments": {}}</tool_call>',
        '<tool_call>{"arguments": {"a": 1}}</tool_call>',
        '<tool_call>{"arguments": {"a": 1}</tool_call>',
        "<tool_call>{'name': 'add', 'arguments': {}}</tool_call>",
        '<tool_call>{"na',
        '<tool_call>{"na\nme": 1}',
        '<tool_call>{"arguments": {"a"',
        "<tool_call> [ ",
        "<tool_call>{name: add}",
        "a <tool_ca",
        "<",
        "<tool_call><tool_call></tool_call><tool_call>",
    ],
)
def test_json_that_is_no_call_is_content_as_it_was_written(text: str) -> None:
    for cut in (False, True):
        whole = read(JSON, text, cut=cut)
        assert (whole.content, whole.calls) == (text, [])


@pytest.mark.parametrize(
    ("text", "arguments", "content"),
    [
        ('{"name": "add", "arguments": {"a": 1,}}</tool_call> so', '{"a": 1,}', "so"),
        ('{"name": "add", "arguments": {"a": [1}</tool_call> so', '{"a": [1}', "so"),
        ('{"name": "add", "arguments": {"a": "1', '{"a": "1', ""),
        ('{"name": "add", "arguments": {"a": NaN}}</tool_call>', '{"a": NaN}', ""),
        ('{"name": "add", "arguments": [1]}</tool_call>', "[1]", ""),
        ('{"name": "add", "arguments": "Paris"}</tool_call>', "Paris", ""),
        ('{"name": "add", "arguments": "{\\"a\\": ', '{\\"a\\": ', ""),
        ('{"name": "add", "arguments": 12}</tool_call>', "12", ""),
        ('{"name": "add", "arguments": 12]</tool_call>', "12", "]</tool_call>"),
        ('{"name": "add", arguments: {"a": 1}}</tool_call> so', 'arguments: {"a": 1}}', "so"),
        ('{"name": "add", arguments: 1 < 2', "arguments: 1 < 2", ""),
        ('{"name": "add", "arguments": <b', "<b", ""),
        ('{"name": "add"', "", ""),
    ],
)
def test_a_call_that_breaks_after_its_name_stays_and_says_so(text: str, arguments: str, content: str) -> None:
    whole = read(JSON, f"<tool_call>{text}")
    assert (whole.calls, whole.content) == ([("add", arguments)], content)
    parts = JSON.stream(TOOLS)
    outcome(parts, text := f"<tool_call>{text}")
    assert parts.broken_call


@pytest.mark.parametrize(
    ("behind", "content"),
    [("\nDone.", "Done."), ("}\nDone.", "Done."), ("</tool", ""), ("<tool_call>what?", "<tool_call>what?")],
)
def test_what_follows_a_complete_call_that_is_not_closed_is_not_lost(behind: str, content: str) -> None:
    whole = read(JSON, f'<tool_call>{{"name": "add", "arguments": {{}}}}{behind}')
    assert (whole.parsed, whole.content) == ([("add", {})], content)


def test_a_call_behind_something_that_only_looked_like_one_is_found() -> None:
    whole = read(JSON, 'Write <tool_call>{ <tool_call>{"name": "now"}</tool_call>')
    assert (whole.content, whole.parsed) == ("Write <tool_call>{", [("now", {})])


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    arguments=st.dictionaries(st.text(), _values, max_size=4),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    key=st.sampled_from(["arguments", "parameters"]),
    reverse=st.booleans(),
    string=st.booleans(),
    ascii_=st.booleans(),
    indent=st.sampled_from([None, 1]),
    size=st.integers(1, 9),
)
def test_any_arguments_come_out_equal_whatever_their_json_looks_like(
    *,
    arguments: dict[str, Any],
    name: str,
    key: str,
    reverse: bool,
    string: bool,
    ascii_: bool,
    indent: int | None,
    size: int,
) -> None:
    written = json.dumps(arguments, ensure_ascii=ascii_, indent=indent)
    pairs: list[tuple[str, Any]] = [("name", name), ("id", arguments), (key, written if string else arguments)]
    call = dict(reversed(pairs) if reverse else pairs)
    text = f"<tool_call>{json.dumps(call, ensure_ascii=ascii_, indent=indent)}</tool_call>"
    parts = JSON.stream([tool(name.strip())])
    whole = outcome(parts, [text[at : at + size] for at in range(0, len(text), size)])
    assert whole.parsed == [(name.strip(), arguments)]
    assert whole.content == ""


_pieces = st.lists(
    st.sampled_from(
        [
            *'{}[]":,\\<>abn1 \n\t',
            *('"name"', '"arguments"', '"add"', '{"name": "add", ', '"arguments": {', "</tool_call>", "<tool_call>"),
            *("<think>", "</think>", "</tool", "<th", "null", "\\u00", "\ud800", "🙂", "<arg_key>", "[ARGS]"),
            *(text for samples in SAMPLES.values() for text in samples),
        ]
    ),
    max_size=30,
)
FORMATS = {name: family(name) for name in SAMPLES}


@given(st.sampled_from(sorted(FORMATS)), _pieces, st.booleans(), st.booleans(), st.integers(1, 5))
def test_no_text_raises_and_no_cut_changes_what_comes_out(
    name: str, pieces: list[str], thinking: bool, cut: bool, size: int
) -> None:
    text = "".join(pieces)
    whole = [
        outcome(FORMATS[name].stream(TOOLS, starts_thinking=thinking), cuts, cut=cut).comparable
        for cuts in (pieces, [text], [text[at : at + size] for at in range(0, len(text), size)])
    ]
    assert whole[0] == whole[1] == whole[2]


def test_a_long_text_full_of_starts_costs_no_more_than_any_other() -> None:
    for form in FORMATS.values():
        start = form.tool_format.start if form.tool_format else ""
        for text in (start * 1000, f'{start}{{"k": {{' * 1000, f'{start}{{"' * 1000):
            parts = form.stream(TOOLS)
            outcome(parts, [text[at : at + 7] for at in range(0, len(text), 7)])
            assert not parts.broken_call


def test_a_section_full_of_starts_is_text() -> None:
    for name in ("gemma4", "function_gemma", "qwen3_coder", "pythonic"):
        form = FORMATS[name]
        start = form.tool_format.start if form.tool_format else ""
        text = start + "call:a{" * 8000
        assert outcome(form.stream(TOOLS), [text]).content == text


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('[add(a="say "hi" now", b=2)]', [("add", {"a": 'say "hi" now', "b": 2})]),
        ("[add(a='it's')]", [("add", {"a": "it's"})]),
        (
            "[add(a='C:\\Users\n', b=[1, {\"c\": ')'}]), now()]",
            [("add", {"a": "C:\\Users\n", "b": [1, {"c": ")"}]}), ("now", {})],
        ),
        ("[add(a=two words, b=None)]", [("add", {"a": "two words", "b": None})]),
        ("[add(a='b=2)]", []),
        ("[add(a=[1, 2)]", []),
        ("[add(1, 2)]", []),
        ("[add(a=1)] and more", []),
        ('[add(a="two\nlines", b=2)]', [("add", {"a": "two\nlines", "b": 2})]),
        ('[add(a="\\d+", b={"c": true})]', [("add", {"a": "\\d+", "b": {"c": True}})]),
        ("[add(a=1234567890123456789)]", [("add", {"a": 1234567890123456789})]),
    ],
)
def test_lists_of_pythons_calls_are_read_as_templates_write_them_and_others_are_text(
    text: str, calls: list[Any]
) -> None:
    whole = read(family("pythonic"), f"<|tool_call_start|>{text}<|tool_call_end|>")
    assert whole.parsed == calls
    assert bool(whole.content) == (not calls)


@pytest.mark.parametrize(
    ("text", "calls", "content"),
    [
        ('[get_weather(city="Paris", days="3")]', PARIS, ""),
        ("\n[now(), now()]", [("now", {}), ("now", {})], ""),
        ("[1] says so.", [], "[1] says so."),
        ("[nowhere(a=1)]", [], "[nowhere(a=1)]"),
    ],
)
def test_a_list_of_calls_without_marks_is_an_answer_of_its_own(text: str, calls: list[Any], content: str) -> None:
    whole = read(OutputFormat(Marks("", "", _OwnParser("python_list"))), text)
    assert (whole.parsed, whole.content) == (calls, content)


def test_text_that_is_no_list_of_calls_does_not_wait_for_the_end_of_the_answer() -> None:
    stream = OutputFormat(Marks("", "", _OwnParser("python_list"))).stream(TOOLS)
    assert stream.push("[1] says so, ") == [Content("[1] says so,")]


def test_the_closing_tags_of_calls_are_marks() -> None:
    form = OutputFormat(Marks("<atem:function_calls>", "</atem:function_calls>", _OwnParser("muse_spark")))
    assert {"</atem:parameter>", "</atem:invoke>"} <= form.marks


def test_of_kimis_calls_the_one_that_is_cut_is_not_lost() -> None:
    first, second = (SAMPLES["kimi_k2"][0].split("<|tool_calls_section_end|>")[0], "<|tool_call_begin|>functions.add:1")
    whole = read(family("kimi_k2"), first + second)
    assert (whole.parsed, whole.content) == (PARIS, second)


def test_kimis_calls_need_no_marks_around_the_section() -> None:
    first, second = (SAMPLES["kimi_k2"][i].removeprefix("<|tool_calls_section_begin|>") for i in (0, 1))
    bare = first.removesuffix("<|tool_calls_section_end|>")
    for text in (bare, first, bare + second):
        whole = read(family("kimi_k2"), f"I see.{text}")
        assert whole.parsed == (PARIS if text != bare + second else [*PARIS, SUM])
        assert whole.content == "I see."
    cut = bare[:-30]
    assert read(family("kimi_k2"), cut, cut=True).content == read(family("kimi_k2"), cut).content == cut
