"""Text that is safe for a terminal, and the complete part of a growing text."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from localapi.cli.answer_view import complete_length, rendered
from localapi.cli.plain_text import sendable, shown, shown_in_line

pytestmark = pytest.mark.everyday

CONTROLS = {chr(code) for code in [*range(32), *range(127, 160)]} - {"\n", "\t"}


def printed(text: str, *, width: int = 60) -> str:
    """Return the output for a terminal without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(rendered(text), end="")
    return out.getvalue()


@given(st.text())
def test_nothing_shown_holds_a_control_character(text: str) -> None:
    assert not CONTROLS & set(shown(text))
    assert not {"\n", "\t"} & set(shown_in_line(text))
    shown(text).encode()


@given(st.text(alphabet=st.sampled_from("ab \n\x1b\x9b&#27;[]()`*_<>|-1.\r\t")))
def test_markdown_sends_no_control_character_either(text: str) -> None:
    assert not CONTROLS & set(printed(text))


@pytest.mark.parametrize("text", ["plain", "tab\tand\nline", "👋🏽 你好 é"])
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_a_pipe_gets_the_text_as_it_is() -> None:
    assert sendable("\x1b[31m red \ud800") == "\x1b[31m red ?"


BLOCKS = [
    "One paragraph\nof two lines.\n\n",
    "```python\nx = 1\n\n\ny = 2\n```\n",
    "\n1. one\n\n2. two\n\n   more of two\n\n",
    "Another.\n\n",
    "~~~\n```\n~~~\n",
    "The end.",
]


def test_a_block_is_complete_when_nothing_can_change_it() -> None:
    text, complete = "".join(BLOCKS), []
    for length in range(len(text) + 1):
        at = complete_length(text[:length])
        if at not in complete:
            complete.append(at)
    ends = [sum(map(len, BLOCKS[: count + 1])) for count in range(len(BLOCKS) - 1)]
    assert complete == [0, *ends]


@given(st.text(alphabet=st.sampled_from("a \n`~*-1.>|#"), max_size=60))
def test_what_was_complete_stays_complete(text: str) -> None:
    lengths = [complete_length(text[:length]) for length in range(len(text) + 1)]
    assert lengths == sorted(lengths)


def test_nothing_of_a_text_is_dropped() -> None:
    text = printed("<div>tag</div> [name](http://a.b/c) ![img](http://d.e/f)\nsecond\n\n[1]: http://g.h")
    for part in ("<div>tag</div>", "http://a.b/c", "http://d.e/f", "\nsecond", "[1]: http://g.h"):
        assert part in text


def test_code_can_be_copied() -> None:
    assert printed("```python\ndef f():\n    return 1\n```\n").splitlines()[1:-1] == ["def f():", "    return 1"]
