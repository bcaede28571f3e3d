"""Find where later prompts are likely to differ from a prompt, and split it there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localapi.worker.llm.prompt import Rendering

LEAST_TOKENS = 8
"""Minimum tokens of a prefix worth storing; shorter ones are the mark that starts a text, or the name of a role."""

Message = dict[str, Any]


def boundaries(
    rendering: Rendering, messages: Sequence[Message], tokens: Sequence[int], *, start: int = 0
) -> list[int]:
    """Return the points of a prompt where other prompts are likely to differ from it, in order, after `start`.

    They are the start of the first user message, and the start and the end of the last message: for the same system
    prompt, another attempt at the last turn, and the next turn (whose template may write this response differently,
    without its reasoning). A point is omitted if the template writes a message differently when others follow it, or if
    a token spans it. This takes at most four renderings as text, and tokenizes only the shorter side of a point.
    """
    text = _text(rendering, messages, answer=True)
    if not text or not tokens:
        return []
    lead = next((i for i, message in enumerate(messages) if message.get("role") not in {"system", "developer"}), None)
    ends: set[int] = set()
    if lead is not None:
        other = "y" if str(messages[lead].get("content") or "").startswith("x") else "x"
        probe = _text(rendering, [*messages[:lead], {"role": "user", "content": other}], answer=True)
        ends.add(next((i for i, (a, b) in enumerate(zip(text, probe, strict=False)) if a != b), 0))
    for part in (messages[:-1], messages):
        if lead is not None and len(part) > lead:
            history = _text(rendering, part, answer=False)
            if text.startswith(history):
                ends.add(len(history))
    points = {_point(rendering, text, end, tokens) for end in ends if end * len(tokens) > start * len(text)}
    return sorted(point for point in points if max(start + 1, LEAST_TOKENS) <= point < len(tokens))


def segments(tokens: Sequence[int], start: int, ends: Sequence[int]) -> list[list[int]]:
    """Return `tokens[start:]`, split at those of the sorted `ends` that are inside."""
    cuts = [start, *(end for end in ends if start < end < len(tokens)), len(tokens)]
    return [list(tokens[a:b]) for a, b in itertools.pairwise(cuts)]


def _text(rendering: Rendering, messages: Sequence[Message], *, answer: bool) -> str:
    try:
        return rendering.text(list(messages), answer=answer)
    except Exception:  # templates may refuse a system prompt alone, or two consecutive user messages
        return ""


def _point(rendering: Rendering, text: str, end: int, tokens: Sequence[int]) -> int:
    """Return how many tokens `text[:end]` has in the prompt; 0 if unknown. Tokenize the shorter side first."""
    sides = ("tail", "head") if 2 * end > len(text) else ("head", "tail")
    for side in sides:
        part = rendering.encode(text[:end] if side == "head" else text[end:])
        point = len(part) if side == "head" else len(tokens) - len(part)
        if part and part == list(tokens[:point] if side == "head" else tokens[point:]):
            return point
    return 0
