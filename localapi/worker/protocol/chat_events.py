"""Events of chat models: text, reasoning, function calls, and numbers of tokens."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Prefill(msgspec.Struct, tag=True):
    """The progress of processing a prompt."""

    id: int
    done: int
    total: int
    """Number of tokens."""


class Relaxed(msgspec.Struct, tag=True):
    """Requirements on an answer's form that are not enforced. Sent before the answer."""

    id: int
    places: list[str]
    """Paths in the request: "response_format.schema.properties.tags.uniqueItems"."""


class TopLogprob(msgspec.Struct):
    """A token that could have been sampled."""

    token: bytes
    """Bytes that it adds to the answer; part of a character if the model splits characters."""
    logprob: float


class TokenLogprob(TopLogprob):
    """The token that was sampled."""

    top: list[TopLogprob] = []
    """The likeliest tokens, the likeliest first."""


class Delta(msgspec.Struct, tag=True):
    """The next text of an answer. `choice` numbers the answers to one request from 0."""

    id: int
    text: str
    choice: int = 0
    reasoning: bool = False
    """True if this is thinking, and not the answer itself."""
    logprobs: list[TokenLogprob] = []
    """One for each token since the last Delta, if the request asks for them."""
    refusal: bool = False
    """True if this is the reason why the model does not answer."""


class ToolStart(msgspec.Struct, tag=True):
    """The start of a function call."""

    id: int
    choice: int
    index: int
    """Numbers the calls of one answer from 0."""
    call_id: str
    name: str


class ToolArguments(msgspec.Struct, tag=True):
    """The next JSON text of a call's arguments."""

    id: int
    choice: int
    index: int
    text: str


class Addition(msgspec.Struct, tag=True):
    """Fields of another server's reply that no other event has a place for."""

    id: int
    choice: int
    place: Literal["message", "choice", "reply"]
    """Owner of the fields. In a stream, those of a message are those of its delta."""
    fields: dict[str, Any]


StopReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
"""Reason why an answer ended. The last two come from other servers only."""


class Ended(msgspec.Struct, tag=True):
    """One of the answers is complete."""

    id: int
    choice: int
    reason: StopReason
    stop_string: str | None = None
    """The stop string that ended it."""


class Finished(msgspec.Struct, tag=True):
    """All answers are complete; nothing follows for this id."""

    id: int
    prompt_tokens: int
    completion_tokens: int
    """Tokens of all answers."""
    cached_tokens: int = 0
    """Tokens of the prompt that an earlier request had computed."""
    reasoning_tokens: int = 0
    """Tokens of the completion that are reasoning."""
    counted: bool = True
    """False if another server does not report the number of tokens. The numbers are 0 then."""
    reported: dict[str, Any] | None = None
    """Another server's usage object."""
    load_seconds: float = 0.0
    """Time from the request until its model was loaded. The server measures these three."""
    prompt_seconds: float = 0.0
    """Time from there to the first token."""
    answer_seconds: float = 0.0
    """Time from the first token to the last."""


class TokenizedText(msgspec.Struct, tag=True):
    """The reply to Tokenize; nothing follows for this id."""

    id: int
    tokens: list[int]


class DetokenizedText(msgspec.Struct, tag=True):
    """The reply to Detokenize; nothing follows for this id."""

    id: int
    text: str


def join(last: object, event: object) -> bool:
    """Append an event's text to the event before it if it continues that. Return True if it does."""
    match last, event:
        case Delta(), Delta() if (last.id, last.choice, last.reasoning, last.refusal) == (
            event.id,
            event.choice,
            event.reasoning,
            event.refusal,
        ):
            last.text += event.text
            last.logprobs += event.logprobs
            return True
        case ToolArguments(), ToolArguments() if (last.id, last.choice, last.index) == (
            event.id,
            event.choice,
            event.index,
        ):
            last.text += event.text
            return True
        case _:
            return False
