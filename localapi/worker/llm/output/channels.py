"""Answers that are messages, each of which has a header that shows what it is.

gpt-oss (harmony): `<|channel|>analysis<|message|>` begins reasoning, `final` the answer, and
`commentary to=functions.f` a call of f; the recipient may stand before or after the channel. The source is
https://github.com/openai/harmony. Solar Open has a mark for each kind of message, and Functionary 3.2 the recipient in
a line of its own, which is `all` for content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from localapi.worker.llm.output.json_calls import is_object
from localapi.worker.llm.output.sections import Calls, Markers, SectionItem

NORMAL, REASONING, TOOL = "normal", "reasoning", "tool"
"""mlx-lm's names of states."""
HEADER, MESSAGE = "header", "message"
"""The states in the header of a message, and after a header whose text decides what follows."""


@dataclass(frozen=True)
class Channels:
    """The messages of one family's answers."""

    edges: Mapping[str, Mapping[str, str]]
    """The state that each mark leads to, by state. An answer begins in a header."""
    content: str
    """The header of content."""
    again: str = ""
    """The text between the end of a message and the header of the next."""
    recipient: re.Pattern[str] = re.compile(r"(?!)")
    """The `name` of the function that a message calls, in its header."""
    reasoning: re.Pattern[str] = re.compile(r"(?!)")
    """The header of reasoning."""
    ends: tuple[str, ...] = ()
    """Marks that end a call, or begin the next message."""
    opens: str = ""
    """The mark that is part of the header that it begins."""
    is_text: re.Pattern[str] = re.compile(r"(?!)")
    """A header that calls none of the tools, and is text that only looks like a header."""
    inner_marks: tuple[str, ...] = ()
    """Other marks, which may be special tokens."""

    @property
    def marks(self) -> set[str]:
        """All marks."""
        return {*self.ends, *self.inner_marks}.union(*self.edges.values())

    def called(self, header: str) -> str | None:
        """Return the name of the function that the message after this header calls; None if it calls none."""
        found = self.recipient.search(header)
        return found["name"] if found else None


_CHANNEL: Final = "<|channel|>"
_HARMONY_ENDS: Final = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", _CHANNEL)
HARMONY: Final = Channels(
    edges={
        NORMAL: dict.fromkeys(_HARMONY_ENDS, HEADER),
        REASONING: dict.fromkeys(_HARMONY_ENDS, HEADER),
        HEADER: {"<|message|>": MESSAGE, **{mark: HEADER for mark in _HARMONY_ENDS if mark != _CHANNEL}},
    },
    content=f"{_CHANNEL}final<|message|>",
    again="<|start|>assistant",
    recipient=re.compile(r"\bto\s*=\s*(?:functions\.)?(?P<name>[^\s<>]+)"),
    reasoning=re.compile(r"<\|channel\|>\s*analysis(?![a-z])"),
    ends=_HARMONY_ENDS,
    opens=_CHANNEL,
    inner_marks=("<|constrain|>",),
)
SOLAR: Final = Channels(
    edges={
        NORMAL: {"<|end|>": HEADER},
        REASONING: {"<|end|>": HEADER},
        HEADER: {"<|think|>": REASONING, "<|content|>": NORMAL, "<|tool_calls|>": TOOL},
    },
    content="<|content|>",
    again="<|begin|>assistant",
    inner_marks=("<|begin|>",),
)
FUNCTIONARY: Final = Channels(
    edges={NORMAL: {">>>": HEADER}, HEADER: {"\n": MESSAGE}},
    content="all\n",
    again=">>>",
    recipient=re.compile(r"\A(?:>>>)?(?P<name>\S+)\Z"),
    ends=(">>>",),
    opens=">>>",
    is_text=re.compile(r"(?!(?:>>>)?all\Z).+"),
)


class ChannelCall:
    """Read the arguments of a call whose name is known, while they grow."""

    def __init__(self, name: str, calls: Calls, ends: tuple[str, ...]) -> None:
        self._calls = calls
        self._ends = Markers(ends)
        self._held = ""
        self._text = ""
        self._out: list[SectionItem] = [calls.start(name)]
        self.rest: str | None = None

    def push(self, text: str) -> list[SectionItem]:
        """Return the items that became certain with this text."""
        before, marker, behind = self._ends.split(self._held + text)
        self._grow(before)
        self._held = behind
        if marker is not None:
            self.rest = marker + behind
            self._complete()
        return self._given()

    def finish(self, *, cut: bool) -> list[SectionItem]:
        """Return the remaining items of a call that the answer ended in: its end mark may also end the answer."""
        self._grow(self._held)
        self.rest = ""
        if cut:
            self._calls.broken = self._calls.unfinished = True
        else:
            self._complete()
        return self._given()

    def _grow(self, text: str) -> None:
        text = text if self._text else text.lstrip()
        if text:
            self._text += text
            self._out.append(self._calls.grow(text))

    def _complete(self) -> None:
        if not self._text.strip():
            self._grow("{}")
        if not is_object(self._text):
            self._calls.broken = True
        self._calls.complete += 1

    def _given(self) -> list[SectionItem]:
        out, self._out = self._out, []
        return out
