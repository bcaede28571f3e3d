"""Events of chat models: text, reasoning, function calls, and token counts."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Prefill(msgspec.Struct, tag=True):
    """Progress of processing a prompt."""

    id: int
    done: int
    total: int
    """Number of tokens."""


class Relaxed(msgspec.Struct, tag=True):
    """Constraints on a response's form that are not enforced. Sent before the response."""

    id: int
    places: list[str]
    """Paths in the request: "response_format.schema.properties.tags.uniqueItems"."""


class TopLogprob(msgspec.Struct):
    """A token that could have been sampled."""

    token: bytes
    """Bytes that it adds to the response; part of a character if the model splits characters."""
    logprob: float


class TokenLogprob(TopLogprob):
    """Token that was sampled."""

    top: list[TopLogprob] = []
    """The likeliest tokens, the likeliest first."""


class Delta(msgspec.Struct, tag=True):
    """Next text of a response. `choice` numbers the responses to one request from 0."""

    id: int
    text: str
    choice: int = 0
    reasoning: bool = False
    """True if this is reasoning, and not the response itself."""
    logprobs: list[TokenLogprob] = []
    """One for each token since the last Delta, if the request asks for them."""
    refusal: bool = False
    """True if this is the reason why the model refuses."""


class ToolStart(msgspec.Struct, tag=True):
    """Start of a function call."""

    id: int
    choice: int
    index: int
    """Number of the call within its response, from 0."""
    call_id: str
    name: str


class ToolArguments(msgspec.Struct, tag=True):
    """Next JSON text of a call's arguments."""

    id: int
    choice: int
    index: int
    text: str


class Addition(msgspec.Struct, tag=True):
    """Fields of another server's reply that no other event has a place for."""

    id: int
    choice: int
    place: Literal["message", "choice", "reply"]
    """Owner of the fields. In a stream, those of a message belong to its delta."""
    fields: dict[str, Any]


StopReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
"""Reason why a response ended. The last two come only from other servers."""


class Ended(msgspec.Struct, tag=True):
    """One of the responses is complete."""

    id: int
    choice: int
    reason: StopReason
    stop_string: str | None = None
    """Stop string that ended it."""


class Finished(msgspec.Struct, tag=True):
    """All responses are complete; nothing follows for this id."""

    id: int
    prompt_tokens: int
    completion_tokens: int
    """Tokens of all responses."""
    cached_tokens: int = 0
    """Tokens of the prompt that an earlier request had computed."""
    reasoning_tokens: int = 0
    """Tokens of the completion that are reasoning."""
    counted: bool = True
    """False if another server does not report the number of tokens, so that the numbers are 0."""
    reported: dict[str, Any] | None = None
    """Another server's usage object."""
    load_seconds: float = 0.0
    """Time from the request until its model was loaded. The server measures this and the next two."""
    prompt_seconds: float = 0.0
    """Time from there to the first token."""
    answer_seconds: float = 0.0
    """Time from the first token to the last."""


class TokenizedText(msgspec.Struct, tag=True):
    """Reply to Tokenize; nothing follows for this id."""

    id: int
    tokens: list[int]


class DetokenizedText(msgspec.Struct, tag=True):
    """Reply to Detokenize; nothing follows for this id."""

    id: int
    text: str


def join(last: object, event: object) -> bool:
    """Append an event's text to the previous event if it continues that. Return True if it does."""
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
