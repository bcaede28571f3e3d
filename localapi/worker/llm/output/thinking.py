"""State at the end of a prompt: inside a think block, after one, or with room for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from localapi.worker.llm.output.recognition import channels_of

BEHIND_THINKING: Final = "\n\n"
"""The whitespace that most templates write between thinking and answer."""
PROMPT_END_TOKENS: Final = 64
"""Tokens at a prompt's end that certainly contain a marker and its surroundings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThinkBlock:
    """Free text before the text that has a form."""

    start: str
    end: str
    opened: bool = False
    """True if the prompt ends inside the block. Otherwise the model may open one."""
    closed: bool = False
    """True if the prompt leaves no room for the block."""
    header: str = ""
    """The header of an answer that is not a call. With one, no thought needs no mark: `start` may be empty."""


def think_block(tokenizer: Any, prompt: Sequence[int], prefill: str = "") -> ThinkBlock | None:
    """Return how the model may think after this prompt; None if it cannot, or the prompt ends with a closed block.

    `prefill` is the start of the response, with which the prompt ends.
    """
    start, end = tokenizer.think_start, tokenizer.think_end
    channels = channels_of(tokenizer)
    if channels is not None:
        behind = (end or "") + channels.again
        return ThinkBlock(start=start or "", end=behind, closed=bool(prefill), header=channels.content)
    if start is None:
        return None
    if prompt_opens_thinking(tokenizer, prompt, prefill=prefill):
        return ThinkBlock(start=start, end=end, opened=True)
    text = str(tokenizer.decode(list(prompt[-PROMPT_END_TOKENS:])))
    if prefill or text.rstrip().endswith(end):
        return None
    return ThinkBlock(start=start, end=end)


def prompt_opens_thinking(tokenizer: Any, prompt: str | Sequence[int], *, prefill: str = "") -> bool:
    """Return True if the response starts inside a think block that the template or the prefill opened.

    `prefill` is the text of the assistant's message with which the prompt ends and which the response continues. Only
    the end of the prompt counts, because a user may write `<think>` anywhere else.
    """
    start, end = tokenizer.think_start, tokenizer.think_end
    if start is None:
        return False
    if not isinstance(prompt, str):
        # A token is at least a byte, or a few of whitespace.
        length = PROMPT_END_TOKENS + len(prefill.encode("utf-8", "replace"))
        prompt = str(tokenizer.decode(list(prompt[-length:])))
    if prefill.rfind(start) != prefill.rfind(end):
        return prefill.rfind(start) > prefill.rfind(end)
    return prompt.rstrip().removesuffix(prefill.rstrip()).rstrip().endswith(start.rstrip())
