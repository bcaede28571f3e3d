"""The parts of an answer: thinking, content and calls apart, however the text is cut, and nothing lost between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.chat_templates import muse_spark as muse_format
from mlx_lm.tokenizer_utils import TokenizerWrapper, load
from mlx_lm.tool_parsers import json_tools, kimi_k3, muse_spark

from localapi.worker.llm.detokenizer import Detokenizer
from localapi.worker.llm.output.parser import Content, OutputFormat, Reasoning
from localapi.worker.llm.output.sections import CallStart
from localapi.worker.llm.output.stop_strings import AnswerText
from localapi.worker.llm.output.thinking import prompt_opens_thinking
from tests.worker.llm.output.test_tool_calls import SAMPLES, TOOLS, Marks, Outcome, outcome
from tools.demo.tokenizer import make_tokenizer

pytestmark = pytest.mark.everyday

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER: Any = TokenizerWrapper(
    make_tokenizer(["<think>\nHello, world! 你好 🙂\n</think>\n\nHow are you?"]),
    tool_call_start=json_tools.tool_call_start,
    tool_call_end=json_tools.tool_call_end,
    tool_parser=json_tools.parse_tool_call,
)
QWEN = OutputFormat(TOKENIZER)
CALL = SAMPLES["json_tools"][1]
ADD = ("add", {"a": 1, "b": 2.5})


def parted(text: str, *, thinking: bool = False, form: OutputFormat = QWEN, tools: Any = TOOLS) -> Outcome:
    """Return the parts of a text, equal for the whole at once and for single characters."""
    whole = outcome(form.stream(tools, starts_thinking=thinking), [text])
    assert outcome(form.stream(tools, starts_thinking=thinking), text).comparable == whole.comparable
    return whole


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\nHm.\n</think>\n\nHello", "Hm.", "Hello"),
        ("\n<think>Hm.</think>Hello\n", "Hm.", "Hello\n"),
        ("<think>\n\n</think>\n\nHello", "", "Hello"),
        ("<think>\n\n  a\n\n  b\n\n</think>\n\n  Hello", "  a\n\n  b", "Hello"),
        ("<think>\nHm, a < b </thi", "Hm, a < b </thi", ""),
        ("<think>\nHm.\n", "Hm.", ""),
        ("<think>", "", ""),
        ("<think>a</think>b<think>c</think>d", "ac", "bd"),
        ("<think>a\n</think>b\n\n<think>c</think>\nd", "a\nc", "b\n\nd"),
        ("<think>a</think>b<think>c</think>\n\nd", "ac", "b\n\nd"),
        ("<think><think>\nHm.</think>Hello", "Hm.", "Hello"),
        ("<think>A <think> mark.</think>Hello", "A <think> mark.", "Hello"),
        ("</think>\n\nHello", "", "Hello"),
        ("Hello </think> you", "", "Hello </think> you"),
        ("a <b </x <thinker> <think", "", "a <b </x <thinker> <think"),
        ("  Hello  ", "", "  Hello  "),
        ("", "", ""),
    ],
)
def test_thinking_is_reasoning_and_the_rest_is_content(text: str, reasoning: str, content: str) -> None:
    for tools in (TOOLS, None):
        whole = parted(text, tools=tools)
        assert (whole.reasoning, whole.content, whole.calls) == (reasoning, content, [])


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("Hm.\n</think>\n\nHello", "Hm.", "Hello"),
        ("<think>\nHm.</think>Hello", "Hm.", "Hello"),
        ("Hm, never done", "Hm, never done", ""),
        ("</think>Hello", "", "Hello"),
    ],
)
def test_a_prompt_that_opened_the_think_block_needs_no_mark(text: str, reasoning: str, content: str) -> None:
    whole = parted(text, thinking=True)
    assert (whole.reasoning, whole.content) == (reasoning, content)


def test_without_think_marks_nothing_is_thinking() -> None:
    for form in (OutputFormat(Marks()), OutputFormat(Marks("<tool_call>", "</tool_call>", json_tools.parse_tool_call))):
        whole = parted(" <think>Hm.</think> Hello ", form=form, thinking=True)
        assert whole.content == " <think>Hm.</think> Hello "


def test_whitespace_around_calls_is_the_templates_and_within_content_the_models() -> None:
    whole = parted(f"I add.\n\n{CALL}\n{CALL}\n")
    assert (whole.content, whole.parsed, whole.order) == ("I add.", [ADD, ADD], "CSASA")
    assert parted(f"I add.\n\n{CALL}\n  Done. ").content == "I add.\n\nDone. "
    assert parted(f"I add.{CALL}\nDone.").content == "I add.\nDone."
    assert parted("I add.\n\n<tool_call>no</tool_call>\n").content == "I add.\n\n<tool_call>no</tool_call>\n"


def test_a_call_that_is_none_leaves_the_thought_where_it_was() -> None:
    whole = parted("<think>\nI may <tool_call>x</tool_call> it.\n</think>\n\nNo.")
    assert (whole.reasoning, whole.content) == ("I may <tool_call>x</tool_call> it.", "No.")


def test_state_says_where_the_text_is() -> None:
    parts = QWEN.stream(TOOLS)
    states = []
    for piece in ["<thi", "nk>", "Hm.", "</think>", "Hello", "<tool_call>", '{"name"', "}", CALL, "!"]:
        parts.push(piece)
        states.append(parts.state)
    thinking, content, tool = ["reasoning"] * 2, ["content"], ["tool"] * 2
    assert states == content + thinking + content * 2 + tool + content * 3
    assert QWEN.stream(starts_thinking=True).state == "reasoning"


def test_parts_come_as_soon_as_they_are_certain() -> None:
    parts = QWEN.stream(TOOLS)
    assert parts.push("<think>\nA b") == [Reasoning("A b")]
    assert parts.push("c\n") == [Reasoning("c")]
    assert parts.push("d</think>\n\nE f <") == [Reasoning("\nd"), Content("E f")]
    assert parts.push("g\n") == [Content(" <g")]
    start, _ = parts.push(CALL)
    assert isinstance(start, CallStart)
    assert parts.finish() == []


_words = st.sampled_from(["one", " two", "\nthree\n", "4 < 5", " 你好 ", "{6}"])
_marks = st.sampled_from(["<think>", "</think>", "<tool_call>no", CALL, "<think>\n", "</think>\n\n", f"\n{CALL}\n"])
_texts = st.lists(_words | _marks, max_size=20).map("".join)


@given(text=_texts, thinking=st.booleans(), tools=st.booleans(), sizes=st.lists(st.integers(1, 12), min_size=1))
def test_any_cut_gives_the_same_parts_and_every_word_is_in_one(
    *, text: str, thinking: bool, tools: bool, sizes: list[int]
) -> None:
    offered = TOOLS if tools else None
    whole = outcome(QWEN.stream(offered, starts_thinking=thinking), [text])
    pieces: list[str] = []
    at = 0
    while at < len(text):
        pieces.append(text[at : at + sizes[len(pieces) % len(sizes)]])
        at += len(pieces[-1])
    assert outcome(QWEN.stream(offered, starts_thinking=thinking), pieces).comparable == whole.comparable
    assert len(whole.calls) == (text.count(CALL) if tools else 0)
    left = "".join((text.replace(CALL, "") if tools else text).split())
    for mark in ("<think>", "</think>"):
        left = left.replace(mark, "")
    given_text = (whole.content + whole.reasoning).replace("<think>", "").replace("</think>", "")
    assert sorted("".join(given_text.split())) == sorted(left)


@given(_texts, st.booleans())
def test_tokens_of_a_real_vocabulary_give_the_same_parts_as_their_text(text: str, tools: bool) -> None:
    offered = TOOLS if tools else None
    answer, parts, whole = AnswerText(Detokenizer(TOKENIZER).stream()), QWEN.stream(offered), Outcome()
    for token in TOKENIZER.encode(text, add_special_tokens=False):
        for part in parts.push(answer.push(token)):
            whole.add(part)
    for part in [*parts.push(answer.finish()), *parts.finish()]:
        whole.add(part)
    assert whole.comparable == outcome(QWEN.stream(offered), [text.lstrip()]).comparable


# --- stop strings ---


@pytest.mark.parametrize(
    ("stop", "text", "content"),
    [
        (["\n"], "<think>\nHm.\nSo.\n</think>\n\nHello\nyou", "Hello"),
        (["Hm"], "<think>\nHm.\n</think>\n\nHello", "Hello"),
        (["Hm"], "<think>\nHm.", ""),
        (["think"], "<think>\nHm.\n</think>\n\nI think so", "I "),
        (["</think>"], "<think>\nHm.\n</think>\n\nHello", "Hello"),
        (["", "lo"], "Hello", "Hel"),
        (["\n\n"], "Hello\n\n", "Hello"),
        (["\n\n"], "Hello\n", "Hello\n"),
        (["lo you"], "Hello <think>Hm.</think>you", "Hel"),
        (["bad"], "Hello <tool_call>bad</tool_call> you", "Hello <tool_call>"),
        (["l>b"], "Hello <tool_call>bad</tool_call> you", "Hello <tool_cal"),
        (["<tool_call>"], "Hello <tool_call>bad</tool_call> you", "Hello "),
        (["\n" * 4], "Hello" + "\n" * 40, "Hello"),
    ],
)
def test_a_stop_string_ends_content_and_nothing_else(stop: list[str], text: str, content: str) -> None:
    whole = stopped_at(stop, text)
    assert (whole.content, whole.calls) == (content, [])


@pytest.mark.parametrize(
    ("stop", "before", "content"),
    [
        (["add"], "", ""),
        (['"arguments"', "2.5", "{", "}"], "", ""),
        (["</tool_call>", "<tool_call>"], "I see.\n", "I see."),
        (["\n"], "I see.\n\n", "I see."),
        (["see.\n<tool"], "I see.\n", "I see."),
        (['see.\n\n<tool_call>\n{"name'], "I see.\n\n", "I see."),
    ],
)
def test_a_stop_string_that_begins_or_ends_in_a_call_does_not_cut_it(
    stop: list[str], before: str, content: str
) -> None:
    whole = stopped_at(stop, before + CALL)
    assert (whole.content, whole.parsed) == (content, [ADD])


def test_after_a_stop_string_there_is_no_call_and_behind_a_call_it_still_ends_content() -> None:
    assert stopped_at(["END"], f"I see. END {CALL}").calls == []
    assert stopped_at(["\n\n"], f"{CALL}\nOne.\n\nTwo.").content == "One."
    assert stopped_at(["One. Two"], f"One.{CALL} Two.").content == ""


def test_a_stop_string_is_found_as_soon_as_it_is_there() -> None:
    parts = QWEN.stream(TOOLS, stop=["END."])
    assert parts.push("The EN") == [Content("The ")]
    assert not parts.stopped
    assert parts.push("D. And") == []
    assert parts.stopped
    assert parts.push(" more" + CALL) == parts.finish() == []
    assert not parts.called


def stopped_at(stop: list[str], text: str) -> Outcome:
    """Return a text with these stop strings, equal for the whole at once and for single characters."""
    whole = outcome(QWEN.stream(TOOLS, stop=stop), [text])
    assert outcome(QWEN.stream(TOOLS, stop=stop), text).comparable == whole.comparable
    return whole


@given(
    _texts, st.lists(st.sampled_from(["\n", "one", "e t", "</th", "tool", "{", "6}", "\n\n", "three\n"]), max_size=3)
)
def test_content_is_cut_before_the_first_stop_string_and_calls_and_thoughts_before_it_are_whole(
    text: str, stop: list[str]
) -> None:
    free, whole = outcome(QWEN.stream(TOOLS), [text]), stopped_at(stop, text)
    found = [string for string in stop if string in free.content]
    assert free.content.startswith(whole.content)
    assert not any(string in whole.content for string in stop)
    assert (whole.content != free.content) == bool(found)
    assert free.reasoning.startswith(whole.reasoning)
    assert whole.parsed == [ADD] * len(whole.calls)
    assert found or (whole.reasoning, whole.calls) == (free.reasoning, free.calls)


# --- how the prompt begins the answer ---

ASKED = [{"role": "user", "content": "What is <think>?"}]


def test_only_the_end_of_the_prompt_can_open_a_think_block() -> None:
    prompt = TOKENIZER.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=False)
    for end, opens in [("", False), ("<think>\n", True), ("<think>\n\n</think>\n\n", False), ("<think>", True)]:
        assert prompt_opens_thinking(TOKENIZER, prompt + end) == opens
        assert prompt_opens_thinking(TOKENIZER, TOKENIZER.encode(prompt + end)) == opens
    assert not prompt_opens_thinking(Marks(), "<think>\n")


@pytest.mark.parametrize(
    ("opened", "prefill", "opens"),
    [
        ("", "Hello ", False),
        ("<think>\n", "I know " * 40, True),
        ("", "<think>\nI know ", True),
        ("", "<think>\nI know.\n</think>\n\nIt", False),
        ("<think>\n", "I know.\n</think>\n\nIt", False),
        ("<think>\n", "", True),
    ],
)
def test_a_prefill_may_open_a_think_block_or_close_it(opened: str, prefill: str, opens: bool) -> None:
    prompt = str(TOKENIZER.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=False)) + opened + prefill
    assert prompt_opens_thinking(TOKENIZER, prompt, prefill=prefill) == opens
    assert prompt_opens_thinking(TOKENIZER, TOKENIZER.encode(prompt), prefill=prefill) == opens


# --- formats with more than think and tool marks ---

MUSE_FORMAT: Any = muse_format.RESPONSE_FORMAT
MUSE = OutputFormat(
    Marks(
        muse_spark.tool_call_start,
        muse_spark.tool_call_end,
        muse_spark.parse_tool_call,
        response_transitions=MUSE_FORMAT["transitions"],
        response_initial_state=MUSE_FORMAT["initial_state"],
    )
)
KIMI = OutputFormat(
    Marks(
        kimi_k3.tool_call_start,
        kimi_k3.tool_call_end,
        kimi_k3.parse_tool_call,
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|>",
        structural_markers=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
    )
)


def test_headers_of_muse_spark_are_no_text() -> None:
    call = SAMPLES["muse_spark"][1]
    text = f" to=self<|message|>Hm.<|eom|><|start|>assistant to=add<|message|>{call}<|eom|>"
    whole = parted(f"{text}<|start|>assistant to=user<|message|>Hello<|eot|>", form=MUSE)
    assert (whole.reasoning, whole.parsed, whole.content) == ("Hm.", [ADD], "Hello")
    assert parted("to=user<|message|>Hello<|eom|><|start|>assi", form=MUSE).content == "Hello"


def test_a_header_that_is_none_and_a_call_that_nobody_asked_for_are_content() -> None:
    call = SAMPLES["muse_spark"][1]
    assert parted("Hello there", form=MUSE).content == "Hello there"
    assert parted(f" to=add<|message|>{call}", form=MUSE, tools=None).content == call
    assert parted("to=add<|message|><atem:function_calls>so", form=MUSE).content == "<atem:function_calls>so"


def test_structural_marks_of_kimi_k3_are_no_text() -> None:
    text = "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|open|>response<|sep|>Hello<|close|>response<|sep|>"
    whole = parted(text + SAMPLES["kimi_k3"][1] + "<|close|>message<|sep|>", form=KIMI)
    assert (whole.reasoning, whole.content, whole.parsed) == ("Hm.", "Hello", [ADD])


def test_marks_are_all_that_must_not_be_dropped_as_special() -> None:
    assert QWEN.marks == {"<think>", "</think>", "<tool_call>", "</tool_call>"}
    assert {"<|open|>think<|sep|>", "<|open|>", "<|close|>message<|sep|>"} <= KIMI.marks
    assert {"<|eom|>", "to=self<|message|>", "<atem:function_calls>"} <= MUSE.marks
    assert OutputFormat(Marks()).marks == set()


def test_the_demo_models_tokenizer_is_understood_as_it_ships(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    form = OutputFormat(load(tmp_path))
    whole = parted(f"<think>\nHm.\n</think>\n\n{CALL}", form=form)
    assert (whole.reasoning, whole.parsed) == ("Hm.", [ADD])
