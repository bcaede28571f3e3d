"""Responses that are sent whole: engine events, collected until the response is complete."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from localapi.worker.protocol import (
    Addition,
    Delta,
    Ended,
    Event,
    Finished,
    StopReason,
    TokenLogprob,
    ToolArguments,
    ToolStart,
)


@dataclass
class Call:
    """Function call of the model."""

    id: str
    name: str
    arguments: str = ""
    """Arguments; JSON, if the model generated JSON."""


@dataclass
class Answer:
    """One choice."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[Call] = field(default_factory=list)
    tokens: list[TokenLogprob] = field(default_factory=list)
    reason: StopReason = "stop"
    """Reason why it ended."""
    stop_string: str | None = None
    """The stop string that ended it."""
    refusal_tokens: list[TokenLogprob] = field(default_factory=list)
    additions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further fields of another server's reply, by `Addition.place`."""

    def add_tokens(self, delta: Delta) -> None:
        """Add the log probabilities of a piece of text."""
        if delta.refusal:
            self.refusal_tokens += delta.logprobs
        else:
            self.tokens += delta.logprobs


async def collected(events: AsyncGenerator[Event, None], count: int) -> tuple[list[Answer], Finished]:
    """Return at least this many choices, and their token counts. Raise ApiError.

    Another server may return more choices than were requested.
    """
    answers = [Answer() for _ in range(count)]
    texts = _Texts()
    usage = Finished(0, 0, 0)
    async with aclosing(events) as source:
        async for event in source:
            if isinstance(event, Delta | ToolStart | Addition | Ended):
                answers += [Answer() for _ in range(event.choice + 1 - len(answers))]
            match event:
                case Delta():
                    texts.add(event)
                    answers[event.choice].add_tokens(event)
                case ToolStart():
                    answers[event.choice].calls.append(Call(event.call_id, event.name))
                case ToolArguments():
                    answers[event.choice].calls[event.index].arguments += event.text
                case Ended():
                    answers[event.choice].reason = event.reason
                    answers[event.choice].stop_string = event.stop_string
                case Addition():
                    answers[event.choice].additions.setdefault(event.place, {}).update(event.fields)
                case Finished():
                    usage = event
    for at, answer in enumerate(answers):
        answer.text, answer.reasoning, answer.refusal = texts.of(at)
    return answers, usage


class _Texts:
    """Texts of all choices in pieces, joined once at the end."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[int, bool, bool], list[str]] = {}

    def add(self, delta: Delta) -> None:
        self._pieces.setdefault((delta.choice, delta.reasoning, delta.refusal), []).append(delta.text)

    def of(self, choice: int) -> tuple[str, str, str]:
        """Return a choice's text, reasoning and refusal."""
        kinds = ((False, False), (True, False), (False, True))
        text, reasoning, refusal = ("".join(self._pieces.get((choice, *kind), ())) for kind in kinds)
        return text, reasoning, refusal
