"""Calls whose arguments are nested elements: objects, lists, text of any kind, and what is not a call."""

from __future__ import annotations

from typing import Any

import pytest

from localapi.worker.llm.output.formats import FORMATS
from localapi.worker.llm.output.parser import OutputFormat
from localapi.worker.llm.output.recognition import _OwnParser
from tests.worker.llm.output.test_tool_calls import Marks, Outcome, outcome

pytestmark = pytest.mark.everyday

START, END = FORMATS["minimax_m3"].marks or ("", "")
FORM = OutputFormat(Marks(START, END, _OwnParser("minimax_m3")))
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "size": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "rows": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    },
}
TOOLS = [{"type": "function", "function": {"name": "order", "parameters": SCHEMA}}]


def read(calls: str) -> Outcome:
    """Read calls whose tags are written without the mark before each."""
    text = START + calls.replace("«", "]<]minimax[>[<") + END
    whole = outcome(FORM.stream(TOOLS), [text])
    assert outcome(FORM.stream(TOOLS), text).comparable == whole.comparable
    return whole


def called(inside: str) -> str:
    return f'«invoke name="order">{inside}«/invoke>'


@pytest.mark.parametrize(
    ("inside", "arguments"),
    [
        ("", {}),
        ("«text>5«/text>«count>5«/count>", {"text": "5", "count": 5}),
        ("«text><b>&\n</text>«/text>", {"text": "<b>&\n</text>"}),
        ("«text>«/text>«tags>«/tags>«size>«/size>", {"text": "", "tags": [], "size": {}}),
        ("«size>«x>1.5«/x>«y>2«/y>«/size>", {"size": {"x": 1.5, "y": "2"}}),
        ("«tags>«item>1«/item>\n«item>b«/item>«/tags>", {"tags": ["1", "b"]}),
        ("«rows>«item>«n>1«/n>«/item>«item>«n>2«/n>«/item>«/rows>", {"rows": [{"n": 1}, {"n": 2}]}),
        ("«other>«item>1«/item>«/other>", {"other": [1]}),
        ("«other>«a>1«/a>«a>2«/a>«/other>", {"other": {"a": [1, 2]}}),
    ],
)
def test_elements_become_the_values_that_the_schema_asks_for(inside: str, arguments: dict[str, Any]) -> None:
    found = read(called(inside))
    assert (found.parsed, found.content) == ([("order", arguments)], "")


def test_several_calls_are_several() -> None:
    found = read("\n" + called("«count>1«/count>") + "\n" + called("«count>2«/count>") + "\n")
    assert found.parsed == [("order", {"count": 1}), ("order", {"count": 2})]


@pytest.mark.parametrize(
    "calls",
    [
        '«invoke name="unknown">«/invoke>',
        called("«text>a«/count>"),
        called("«text>a"),
        called("«size>b«x>1«/x>«/size>"),
        "text",
    ],
)
def test_what_is_no_call_stays_text(calls: str) -> None:
    found = read(calls)
    assert (found.calls, found.content) == ([], START + calls.replace("«", "]<]minimax[>[<") + END)
