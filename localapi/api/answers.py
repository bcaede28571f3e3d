"""Answers that are sent whole: engine events, collected until all is known."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from localapi.worker.protocol import Delta, Ended, Event, Finished, TokenLogprob, ToolArguments, ToolStart

StopReason = Literal["stop", "length", "tool_calls"]


@dataclass
class Call:
    """A function that the model calls."""

    id: str
    name: str
    arguments: str = ""
    """JSON, if the model wrote JSON."""


@dataclass
class Answer:
    """One answer."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    tokens: list[TokenLogprob] = field(default_factory=list)
    reason: StopReason = "stop"
    """Why it ended."""


async def collected(events: AsyncGenerator[Event, None], count: int) -> tuple[list[Answer], Finished]:
    """Return so many answers, and what they took in tokens. Raise ApiError."""
    texts: list[list[str]] = [[] for _ in range(count)]
    thoughts: list[list[str]] = [[] for _ in range(count)]
    answers = [Answer() for _ in range(count)]
    usage = Finished(0, 0, 0)
    async with aclosing(events) as source:
        async for event in source:
            match event:
                case Delta():
                    (thoughts if event.reasoning else texts)[event.choice].append(event.text)
                    answers[event.choice].tokens += event.logprobs
                case ToolStart():
                    answers[event.choice].calls.append(Call(event.call_id, event.name))
                case ToolArguments():
                    answers[event.choice].calls[event.index].arguments += event.text
                case Ended():
                    answers[event.choice].reason = event.reason
                case Finished():
                    usage = event
    for at, answer in enumerate(answers):
        answer.text, answer.reasoning = "".join(texts[at]), "".join(thoughts[at])
    return answers, usage
