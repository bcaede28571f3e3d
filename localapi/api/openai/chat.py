"""`POST /v1/chat/completions`: one conversation, answered whole or as server-sent events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from quart import Blueprint

from localapi.api import reply_shapes as shapes
from localapi.api.answers import Answer
from localapi.api.dialect import DialectBlueprint
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai import wire
from localapi.api.openai.chat_request import ChatRequest, parse_chat
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, Operation, Operations
from localapi.runtime.registry import Registry
from localapi.worker.protocol import (
    Delta,
    Ended,
    Event,
    Finished,
    TokenLogprob,
    ToolArguments,
    ToolStart,
    TopLogprob,
)

Growth = Delta | ToolStart | ToolArguments | Ended


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint."""
    return DialectBlueprint(registry, OpenAIChat())


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/chat/completions"): Operation(
        summary="The answer to a conversation.",
        content={JSON: shapes.ChatReply, EVENTS: None},
        body=ChatRequest,
        example={"messages": [{"role": "user", "content": "Hello!"}]},
        errors=ERRORS_OF_WORK,
    ),
}


class OpenAIChat:
    """OpenAI's chat completions."""

    path = "/v1/chat/completions"
    error_body = staticmethod(wire.error_body)

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, ChatReply]:
        body, ignored = parse_chat(content)
        return body.neutral(ignored), ChatReply(body)


class ChatReply(wire.EventStream[Event]):
    """One reply."""

    model = ""

    def __init__(self, body: ChatRequest) -> None:
        super().__init__(self._chunks_of)
        self._body = body
        self._id = f"chatcmpl-{secrets.token_hex(14)}"
        self._created = int(time.time())
        self._begun: set[int] = set()
        """Choices whose role has been sent."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> dict[str, Any]:
        choices = [_choice(at, answer) for at, answer in enumerate(answers)]
        return {**self._frame("chat.completion"), "choices": choices, "usage": wire.usage(usage)}

    def _chunks_of(self, item: Event) -> Iterator[dict[str, Any]]:
        """Yield the role with an answer's first chunk, and usage at the end if the client asked for it."""
        match item:
            case Delta() | ToolStart() | ToolArguments() | Ended():
                if item.choice not in self._begun:
                    self._begun.add(item.choice)
                    first = _chunk_choice(Delta(item.id, "", item.choice))
                    first["delta"] = {"role": "assistant", **first["delta"]}
                    yield {**self._frame("chat.completion.chunk"), "choices": [first]}
                yield {**self._frame("chat.completion.chunk"), "choices": [_chunk_choice(item)]}
            case Finished() if self._body.include_usage:
                yield {**self._frame("chat.completion.chunk"), "choices": [], "usage": wire.usage(item)}

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self.model}


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or (None if answer.calls else ""),
        "refusal": None,
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_call(call.id, call.name, call.arguments) for call in answer.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(answer.tokens),
        "finish_reason": answer.reason,
    }


def _chunk_choice(event: Growth) -> dict[str, Any]:
    delta: dict[str, Any]
    match event:
        case Delta():
            delta = {"reasoning_content" if event.reasoning else "content": event.text}
        case ToolStart():
            delta = {"tool_calls": [{"index": event.index, **_call(event.call_id, event.name, "")}]}
        case ToolArguments():
            delta = {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
        case Ended():
            delta = {}
    return {
        "index": event.choice,
        "delta": delta,
        "logprobs": _logprobs(event.logprobs) if isinstance(event, Delta) else None,
        "finish_reason": event.reason if isinstance(event, Ended) else None,
    }


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _logprobs(tokens: list[TokenLogprob]) -> dict[str, Any] | None:
    if not tokens:
        return None
    content = [{**_likely(token), "top_logprobs": [_likely(other) for other in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _likely(token: TopLogprob) -> dict[str, Any]:
    return {"token": token.token.decode("utf-8", "replace"), "logprob": token.logprob, "bytes": list(token.token)}
