"""Harmony, the format of gpt-oss: a response consists of messages, and a header names the channel of each.

`<|channel|>analysis<|message|>` begins reasoning, `final` the answer, and `commentary to=functions.f` a call of f. The
source is https://github.com/openai/harmony. The recipient may be before or after the channel.
"""

from __future__ import annotations

import re
from typing import Final

from localapi.worker.llm.output.json_calls import is_object
from localapi.worker.llm.output.sections import Calls, Markers, SectionItem

MESSAGE: Final = "<|message|>"
"""The end of a header."""
ENDS: Final = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
"""Marks that end a message, or begin the next one."""
MARKS: Final = (MESSAGE, "<|constrain|>", *ENDS)
ANALYSIS: Final = "<|channel|>analysis<|message|>"
"""The header of reasoning."""
FINAL: Final = "<|channel|>final<|message|>"
"""The header of the answer's content, after `<|start|>assistant`."""
ASSISTANT: Final = "<|start|>assistant"
_RECIPIENT: Final = re.compile(r"\bto\s*=\s*(?:functions\.)?(?P<name>[^\s<>]+)")
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(?P<name>[a-z]+)")


def called(header: str) -> str | None:
    """Return the name of the function that the message after this header calls; None if it calls none."""
    found = _RECIPIENT.search(header)
    return found["name"] if found else None


def is_reasoning(header: str) -> bool:
    """Return True if the message after this header is reasoning."""
    found = _CHANNEL.search(header)
    return found is not None and found["name"] == "analysis"


class HarmonyCall:
    """Reader of the arguments of a call whose name is known, while they grow."""

    def __init__(self, name: str, calls: Calls) -> None:
        self._calls = calls
        self._ends = Markers(ENDS)
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
        """Return the remaining items of a call in which the response ended: its end mark may also end the response."""
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
