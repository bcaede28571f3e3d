"""Where prompts are likely to part, and a prompt cut at such points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

LEAST_TOKENS = 8
"""Shorter beginnings are not worth the work: the mark that starts a text, the name of a role."""

Message = dict[str, Any]


class Writer(Protocol):
    """Writes one request's prompts: with its tools and template arguments."""

    def text(self, messages: list[Message], *, answer: bool) -> str:
        """The template's text; `answer`: ready for the answer ("generation prompt"). May raise anything."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens, with nothing added."""


def boundaries(writer: Writer, messages: Sequence[Message], tokens: Sequence[int], *, start: int = 0) -> list[int]:
    """Points of a prompt where other prompts are likely to leave it, in order; none up to `start`.

    They are where the first user message begins, where the last message begins and where it ends: the same system
    prompt again, another try at the last turn, and the next turn (whose template may write this answer in another way,
    without its thoughts). A point is left out where the template writes a message differently once others follow it, or
    where a token spans it. At most four renderings as text; only the shorter side of a point is tokenised again.
    """
    text = _text(writer, messages, answer=True)
    if not text or not tokens:
        return []
    lead = next((i for i, message in enumerate(messages) if message.get("role") not in {"system", "developer"}), None)
    ends: set[int] = set()
    if lead is not None:
        other = "y" if str(messages[lead].get("content") or "").startswith("x") else "x"
        probe = _text(writer, [*messages[:lead], {"role": "user", "content": other}], answer=True)
        ends.add(next((i for i, (a, b) in enumerate(zip(text, probe, strict=False)) if a != b), 0))
    for part in (messages[:-1], messages):
        if lead is not None and len(part) > lead:
            ends.add(len(history) if text.startswith(history := _text(writer, part, answer=False)) else 0)
    points = {_point(writer, text, end, tokens) for end in ends if end * len(tokens) > start * len(text)}
    return sorted(point for point in points if max(start + 1, LEAST_TOKENS) <= point < len(tokens))


def segments(tokens: Sequence[int], start: int, ends: Sequence[int]) -> list[list[int]]:
    """`tokens[start:]`, cut at those of the sorted `ends` that lie inside."""
    cuts = [start, *(end for end in ends if start < end < len(tokens)), len(tokens)]
    return [list(tokens[a:b]) for a, b in itertools.pairwise(cuts)]


def _text(writer: Writer, messages: Sequence[Message], *, answer: bool) -> str:
    try:
        return writer.text(list(messages), answer=answer)
    except Exception:  # templates refuse what no client would send: a system prompt alone, two users in a row
        return ""


def _point(writer: Writer, text: str, end: int, tokens: Sequence[int]) -> int:
    """How many tokens `text[:end]` has within the prompt; 0 if that cannot be said. The shorter side is tokenised."""
    sides = ("tail", "head") if 2 * end > len(text) else ("head", "tail")
    for side in sides:
        part = writer.encode(text[:end] if side == "head" else text[end:])
        point = len(part) if side == "head" else len(tokens) - len(part)
        if part and part == list(tokens[:point] if side == "head" else tokens[point:]):
            return point
    return 0
