"""One answer as events: which reason it ends with, and that a call which was cut is never told as complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from localapi.worker.llm.detokenizer import Detokenizer
from localapi.worker.llm.output.stop_strings import AnswerText
from localapi.worker.llm.row import RequestTotals, Row
from localapi.worker.protocol import Delta, Ended, Event, ToolArguments, ToolStart
from tests.worker.llm.output.test_parser import CALL, QWEN, TOKENIZER
from tests.worker.llm.output.test_tool_calls import FORMATS, SAMPLES, TOOLS

if TYPE_CHECKING:
    from localapi.worker.llm.output.parser import OutputFormat
    from localapi.worker.llm.row import FinishReason


def answered(
    text: str, reason: FinishReason, *, stop: list[str] | None = None, form: OutputFormat = QWEN
) -> list[Event]:
    """The events of a model that writes this text, until it is told to stop."""
    row = Row(
        totals=RequestTotals(1, 1), choice=0, prompt=[], max_tokens=9999, reach=1, length=1, sampler=None,
        processors=[], answer=AnswerText(Detokenizer(TOKENIZER).stream()), parts=form.stream(TOOLS, stop=stop or []),
    )  # fmt: skip
    tokens: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    events: list[Event] = []
    for token in tokens[:-1]:
        if row.grow(token, None, events):
            return events
    last = tokens[-1] if reason == "length" else TOKENIZER.eos_token_id
    if reason == "length" or not row.grow(tokens[-1], None, events):
        row.grow(last, reason, events)
    return events


def ended(events: list[Event]) -> str:
    [end] = [event for event in events if isinstance(event, Ended)]
    return end.reason


def called(events: list[Event]) -> list[str]:
    return [event.name for event in events if isinstance(event, ToolStart)]


@pytest.mark.parametrize(
    ("text", "reason", "stop", "expected"),
    [
        ("Hello", "stop", [], "stop"),
        ("Hello", "length", [], "length"),
        ("Hello END", "length", ["END"], "stop"),
        ("Hello END and", "length", ["END"], "stop"),
        ("Hello\n", "length", ["\n"], "stop"),
        ("<think>\nHello END", "length", ["END"], "length"),
        (CALL, "stop", ["add"], "tool_calls"),
        (CALL, "stop", [], "tool_calls"),
        (CALL, "length", [], "length"),
        (CALL.removesuffix("\n</tool_call>"), "stop", [], "tool_calls"),
        (f"{CALL}\nDone. END", "length", ["END"], "tool_calls"),
        (CALL[:40], "length", [], "length"),
        (CALL[:40], "stop", [], "stop"),
        (CALL + CALL[:40], "stop", [], "stop"),
    ],
)
def test_the_reason_says_how_the_answer_ended(text: str, reason: FinishReason, stop: list[str], expected: str) -> None:
    assert ended(answered(text, reason, stop=stop)) == expected


def test_nothing_is_generated_behind_a_stop_string() -> None:
    events = answered("Hello END and a long story", "length", stop=["END"])
    assert [event for event in events if isinstance(event, Delta)] == [Delta(1, "Hello", 0), Delta(1, " ", 0)]


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("reason", ["length", "stop"])
def test_a_call_that_was_cut_is_told_as_complete_by_no_family(name: str, reason: FinishReason) -> None:
    text, form = SAMPLES[name][0], FORMATS[name]
    end = form.tool_format.end if form.tool_format else ""
    whole = answered(text, "stop", form=form)
    assert ended(whole) == "tool_calls"
    for length in range(1, len(text) - len(end)):
        events = answered(text[:length], reason, form=form)
        if ended(events) != "tool_calls":
            assert ended(events) == reason
        elif name in {"glm47", "laguna", "longcat", "minicpm5"}:  # between two arguments, the model may mean to end
            assert _arguments(events) in (_arguments(whole), '{"city": "Paris"}')
        else:
            assert _arguments(events) == _arguments(whole)


def _arguments(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ToolArguments))
