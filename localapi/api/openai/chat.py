"""`POST /v1/chat/completions`: the response to a conversation, whole or as server-sent events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from quart import Blueprint

from localapi.api.answers import Answer
from localapi.api.dialect import DialectBlueprint
from localapi.api.logprobs import ChosenToken, chosen
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai import wire
from localapi.api.openai.chat_request import ChatRequest, parse_chat
from localapi.api.openai.custom_tools import custom_input
from localapi.api.openai.forwarded_request import ForwardedChat
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, Operation, Operations
from localapi.errors import InvalidRequest
from localapi.http.replies import Form, event
from localapi.runtime.registry import Registry
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


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint."""
    return DialectBlueprint(registry, OpenAIChat())


class CalledFunction(Struct):
    name: str
    arguments: str


class ToolCall(Struct, tag="function", tag_field="type"):
    id: str
    function: CalledFunction


class CalledCustom(Struct):
    name: str
    input: str


class CustomToolCall(Struct, tag="custom", tag_field="type"):
    id: str
    custom: CalledCustom


class Logprobs(Struct):
    content: list[ChosenToken] | None
    refusal: list[ChosenToken] | None = None


class AnswerMessage(Struct, kw_only=True):
    """Message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall | CustomToolCall] | UnsetType = UNSET


class ChatChoice(Struct):
    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: StopReason


class ChatCompletion(Struct, kw_only=True):
    """Responses to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: wire.Usage | None


class FunctionGrowth(Struct, kw_only=True):
    name: str | UnsetType = UNSET
    arguments: str


class CustomGrowth(Struct, kw_only=True):
    name: str | UnsetType = UNSET
    input: str


class CallGrowth(Struct, kw_only=True):
    """Next part of a call; the first one names it."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function", "custom"] | UnsetType = UNSET
    function: FunctionGrowth | UnsetType = UNSET
    custom: CustomGrowth | UnsetType = UNSET


class Growth(Struct, kw_only=True):
    """Next part of a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallGrowth] | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    index: int
    delta: Growth
    logprobs: Logprobs | None = None
    finish_reason: StopReason | None = None


class ChatChunk(Struct, kw_only=True):
    """Next part of the responses to a conversation."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: wire.Usage | UnsetType | None = UNSET


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/chat/completions"): Operation(
        summary="Generate a response to a conversation.",
        content={JSON: ChatCompletion, EVENTS: None},
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
        try:
            body, ignored = parse_chat(content)
        except InvalidRequest as refusal:
            unread = ForwardedChat.read(content, refusal)
            return unread.neutral(content, refusal), ChatReply(include_usage=unread.include_usage)
        reply = ChatReply(include_usage=body.include_usage, custom_tools=body.custom_tools)
        return body.neutral(ignored, content), reply


class ChatReply(wire.EventStream[Event]):
    """One reply."""

    model = ""

    def __init__(self, *, include_usage: bool, custom_tools: frozenset[str] = frozenset()) -> None:
        super().__init__(self._chunks_of)
        self._include_usage = include_usage
        self._id = f"chatcmpl-{secrets.token_hex(14)}"
        self._created = int(time.time())
        self._begun: set[int] = set()
        """Choices whose role has been sent."""
        self._custom_tools = custom_tools
        self._inputs: dict[tuple[int, int], list[str]] = {}
        """Arguments of calls of custom tools, by choice and index. Their text is known once the JSON is complete."""
        self._forms: dict[int, Form] = {}
        """Forms of chunks with only text, by choice."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> object:
        choices = [_choice(at, answer, self._custom_tools) for at, answer in enumerate(answers)]
        counted = wire.usage(usage)
        completion = ChatCompletion(
            id=self._id, created=self._created, model=self.model, choices=choices, usage=counted
        )
        return wire.with_additions(completion, answers)

    def render(self, item: Event) -> Iterable[bytes]:
        if not isinstance(item, Delta) or item.choice not in self._begun:
            return super().render(item)
        if item.reasoning or item.logprobs or item.refusal:
            return super().render(item)
        return (self._chunk_of_text(item.choice, item.text),)  # nearly all events of a stream

    def _chunk_of_text(self, choice: int, text: str) -> bytes:
        if choice not in self._forms:
            first = self._chunk(ChunkChoice(index=choice, delta=Growth(content="")))
            self._forms[choice] = Form(event(first), b"content")
        return self._forms[choice].filled(text)

    def _chunks_of(self, item: Event) -> Iterator[ChatChunk | dict[str, Any]]:
        """Yield the role with a choice's first chunk, and usage at the end if the client requested it."""
        match item:
            case Delta() | ToolStart() | ToolArguments() | Ended() | Addition():
                if item.choice not in self._begun:
                    self._begun.add(item.choice)
                    yield self._chunk(ChunkChoice(index=item.choice, delta=Growth(role="assistant", content="")))
                if isinstance(item, Addition):
                    chunk = self._chunk(ChunkChoice(index=item.choice, delta=Growth()))
                    yield wire.chunk_with_addition(chunk, item)
                elif self._custom_tools and not isinstance(item, Delta):
                    yield from self._called(item)
                else:
                    yield self._chunk(_chunk_choice(item))
            case Finished() if self._include_usage and item.counted:
                yield self._chunk(usage=wire.usage(item))

    def _called(self, item: ToolStart | ToolArguments | Ended) -> Iterator[ChatChunk]:
        """Yield the next part of a call, which may be one of a custom tool."""
        match item:
            case ToolStart() if item.name in self._custom_tools:
                self._inputs[item.choice, item.index] = []
                custom = CustomGrowth(name=item.name, input="")
                call = CallGrowth(index=item.index, id=item.call_id, type="custom", custom=custom)
                yield self._call_chunk(item.choice, call)
            case ToolArguments() if (item.choice, item.index) in self._inputs:
                self._inputs[item.choice, item.index].append(item.text)
            case _:
                if isinstance(item, Ended):
                    yield from self._custom_inputs(item.choice)
                yield self._chunk(_chunk_choice(item))

    def _custom_inputs(self, of: int) -> Iterator[ChatChunk]:
        """Yield the texts of a choice's calls of custom tools."""
        for (choice, index), pieces in self._inputs.items():
            if choice == of:
                custom = CustomGrowth(input=custom_input("".join(pieces)))
                yield self._call_chunk(choice, CallGrowth(index=index, custom=custom))

    def _call_chunk(self, choice: int, call: CallGrowth) -> ChatChunk:
        return self._chunk(ChunkChoice(index=choice, delta=Growth(tool_calls=[call])))

    def _chunk(self, *choices: ChunkChoice, usage: wire.Usage | UnsetType | None = UNSET) -> ChatChunk:
        return ChatChunk(id=self._id, created=self._created, model=self.model, choices=list(choices), usage=usage)


def _choice(index: int, answer: Answer, custom_tools: frozenset[str]) -> ChatChoice:
    message = AnswerMessage(content=answer.text or (None if answer.calls or answer.refusal else ""))
    if answer.refusal:
        message.refusal = answer.refusal
    if answer.reasoning:
        message.reasoning_content = answer.reasoning
    if answer.calls:
        message.tool_calls = [
            CustomToolCall(call.id, CalledCustom(call.name, custom_input(call.arguments)))
            if call.name in custom_tools
            else ToolCall(call.id, CalledFunction(call.name, call.arguments))
            for call in answer.calls
        ]
    logprobs = _logprobs(answer.tokens, answer.refusal_tokens)
    return ChatChoice(index, message, logprobs, answer.reason)


def _chunk_choice(event: Delta | ToolStart | ToolArguments | Ended) -> ChunkChoice:
    match event:
        case Delta():
            if event.refusal:
                refused = _logprobs([], event.logprobs)
                return ChunkChoice(index=event.choice, delta=Growth(refusal=event.text), logprobs=refused)
            grown = Growth(reasoning_content=event.text) if event.reasoning else Growth(content=event.text)
            return ChunkChoice(index=event.choice, delta=grown, logprobs=_logprobs(event.logprobs, []))
        case ToolStart():
            function = FunctionGrowth(name=event.name, arguments="")
            call = CallGrowth(index=event.index, id=event.call_id, type="function", function=function)
        case ToolArguments():
            call = CallGrowth(index=event.index, function=FunctionGrowth(arguments=event.text))
        case Ended():
            return ChunkChoice(index=event.choice, delta=Growth(), finish_reason=event.reason)
    return ChunkChoice(index=event.choice, delta=Growth(tool_calls=[call]))


def _logprobs(tokens: list[TokenLogprob], refusal: list[TokenLogprob]) -> Logprobs | None:
    if not tokens and not refusal:
        return None
    return Logprobs(chosen(tokens) or None, chosen(refusal) or None)
