"""Answers made of messages: reasoning, content and calls, in every order that models write them."""

from __future__ import annotations

import pytest

from localapi.worker.llm.output.parser import OutputFormat
from localapi.worker.llm.output.recognition import _OwnParser
from tests.worker.llm.output.test_tool_calls import TOOLS, Marks, Outcome, outcome

pytestmark = pytest.mark.everyday

FORM = OutputFormat(Marks("to=functions.", "", _OwnParser("harmony"), "<|channel|>analysis<|message|>", "<|end|>"))
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
CALL = '<|channel|>commentary to=functions.now <|constrain|>json<|message|>{"a": "<|x"}'


def read(text: str, *, tools: bool = True, cut: bool = False, **options: bool) -> Outcome:
    given = TOOLS if tools else []
    whole = outcome(FORM.stream(given, **options), [text], cut=cut)
    assert outcome(FORM.stream(given, **options), text, cut=cut).comparable == whole.comparable
    return whole


@pytest.mark.parametrize(
    ("text", "reasoning", "content", "calls"),
    [
        ("<|channel|>final<|message|>Yes.", "", "Yes.", []),
        (f"{THOUGHT}<|channel|>final<|message|>Yes.<|return|>", "Hm.", "Yes.", []),
        (f"{THOUGHT}{CALL}", "Hm.", "", [("now", {"a": "<|x"})]),
        (f"{THOUGHT}{CALL}<|call|>", "Hm.", "", [("now", {"a": "<|x"})]),
        (' to=functions.now<|channel|>commentary json<|message|>{}', "", "", [("now", {})]),
        (f"<|channel|>commentary<|message|>First a call.<|end|><|start|>assistant{CALL}", "", "First a call.",
         [("now", {"a": "<|x"})]),
        ("<|channel|>commentary to=functions.unknown<|message|>{}", "", "{}", []),
        ("no channel at all", "", "no channel at all", []),
    ],
)  # fmt: skip
def test_channels_are_told_apart(text: str, reasoning: str, content: str, calls: list[object]) -> None:
    found = read(text)
    assert (found.reasoning, found.content, found.parsed) == (reasoning, content, calls)


def test_without_tools_a_call_is_text() -> None:
    assert read(CALL, tools=False).content == '{"a": "<|x"}'


def test_a_continued_answer_is_content_from_its_start() -> None:
    assert read(" and more", continues=True).content.strip() == "and more"


def test_a_call_that_was_cut_off_is_not_complete() -> None:
    stream = FORM.stream(TOOLS)
    stream.push(CALL[:-3])
    stream.finish(cut=True)
    assert (stream.complete_calls, stream.calls_end_answer, stream.broken_call) == (0, False, True)


FUNCTIONARY = OutputFormat(Marks(">>>", "", _OwnParser("functionary")))
SOLAR = OutputFormat(Marks("<|tool_calls|>", "<|calls|>", _OwnParser("solar"), "<|think|>", "<|end|>"))
SOLAR_CALL = '<|tool_call:begin|>{}<|tool_call:name|>now<|tool_call:args|>{{"a": "<|x"}}<|tool_call:end|>'


@pytest.mark.parametrize(
    ("form", "text", "reasoning", "content", "calls"),
    [
        (FUNCTIONARY, "all\nYes.", "", "Yes.", []),
        (FUNCTIONARY, 'now\n{"a": "x"}', "", "", [("now", {"a": "x"})]),
        (FUNCTIONARY, 'all\nFirst.>>>now\n{"a": "x"}>>>now\n{}', "", "First.", [("now", {"a": "x"}), ("now", {})]),
        (FUNCTIONARY, "all\nIn Python:\n>>> print(1)\n1", "", "In Python:\n>>> print(1)\n1", []),
        (FUNCTIONARY, "unknown\n{}", "", "unknown\n{}", []),
        (FUNCTIONARY, "no header", "", "no header", []),
        (SOLAR, "<|content|>Yes.<|end|>", "", "Yes.", []),
        (SOLAR, "<|think|>Hm.<|end|><|begin|>assistant<|content|>Yes.<|end|>", "Hm.", "Yes.", []),
        (SOLAR, f"<|think|>Hm.<|end|><|begin|>assistant<|tool_calls|>{SOLAR_CALL.format('abc')}"
         f"{SOLAR_CALL.format('def')}<|calls|>", "Hm.", "", [("now", {"a": "<|x"})] * 2),
        (SOLAR, "no message at all", "", "no message at all", []),
    ],
)  # fmt: skip
def test_messages_of_other_families_are_told_apart(
    form: OutputFormat, text: str, reasoning: str, content: str, calls: list[object]
) -> None:
    whole = outcome(form.stream(TOOLS), [text])

    assert outcome(form.stream(TOOLS), text).comparable == whole.comparable
    assert (whole.reasoning, whole.content, whole.parsed) == (reasoning, content, calls)
