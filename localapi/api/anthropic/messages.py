"""`POST /v1/messages` and `POST /v1/messages/count_tokens`: answer a conversation, or count its tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from msgspec import Struct
from quart import Blueprint, Response

from localapi.api.answers import Answer, Call
from localapi.api.anthropic import wire
from localapi.api.anthropic.messages_request import CountTokensRequest, MessagesRequest, parse_messages
from localapi.api.dialect import DialectBlueprint, Exchange
from localapi.api.neutral_request import NeutralRequest
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, Operation, Operations
from localapi.errors import ApiError
from localapi.http import body
from localapi.http.generation import begin
from localapi.http.replies import EVENT_STREAM, Form, comment, event, json_reply
from localapi.kinds.chat import CHAT
from localapi.runtime.progress import Progress
from localapi.runtime.registry import Registry
from localapi.worker import protocol
from localapi.worker.protocol import Delta, Ended, Event, Finished, Relaxed, ToolArguments, ToolStart

PATH: Final = "/v1/messages"
UNREADABLE: Final = "arguments"
"""Only member of an input that stands for arguments that are not a JSON object."""
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
_REASONS: Final[dict[protocol.StopReason, StopReason]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class Text(Struct, tag="text", tag_field="type"):
    text: str


class Thinking(Struct, tag="thinking", tag_field="type"):
    thinking: str
    signature: str


class ToolUse(Struct, tag="tool_use", tag_field="type"):
    id: str
    name: str
    input: dict[str, Any]


ContentBlock = Text | Thinking | ToolUse


class AnthropicMessage(Struct, kw_only=True):
    """Response to a conversation."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: wire.MessageUsage


class TokenCount(Struct):
    """Number of tokens in the prompt of a conversation."""

    input_tokens: int


class TextGrowth(Struct, tag="text_delta", tag_field="type"):
    text: str


class ThinkingGrowth(Struct, tag="thinking_delta", tag_field="type"):
    thinking: str


class SignatureGrowth(Struct, tag="signature_delta", tag_field="type"):
    signature: str


class InputGrowth(Struct, tag="input_json_delta", tag_field="type"):
    partial_json: str


class MessageStart(Struct, tag="message_start", tag_field="type"):
    message: AnthropicMessage


class Ping(Struct, tag="ping", tag_field="type"):
    """Shows that the connection is alive."""


class BlockStart(Struct, tag="content_block_start", tag_field="type"):
    index: int
    content_block: ContentBlock


class BlockDelta(Struct, tag="content_block_delta", tag_field="type"):
    index: int
    delta: TextGrowth | ThinkingGrowth | SignatureGrowth | InputGrowth


class BlockStop(Struct, tag="content_block_stop", tag_field="type"):
    index: int


class Ending(Struct):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, tag="message_delta", tag_field="type"):
    """End of the message, with the stop reason and the usage."""

    delta: Ending
    usage: wire.MessageUsage


class MessageStop(Struct, tag="message_stop", tag_field="type"):
    """End of a complete stream."""


StreamEvent = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop


def routes(registry: Registry) -> Blueprint:
    """Return both endpoints."""
    blueprint = DialectBlueprint(registry, Messages(), paths=(PATH,), is_meant=wire.is_meant)

    @blueprint.post(f"{PATH}/count_tokens")
    async def count_tokens() -> Response:
        request, neutral = parse_messages(CountTokensRequest, await body.read_object())
        neutral.check()
        exchange = Exchange(begin(registry, neutral.model, CHAT), neutral, MessagesReply(request))
        with neutral.in_words_of_client():
            tokens = await exchange.prompt_tokens()
        return exchange.named(json_reply(TokenCount(len(tokens))))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("POST", PATH): Operation(
        summary="Generate a response to a conversation, in Anthropic's form.",
        content={JSON: AnthropicMessage, EVENTS: None},
        body=MessagesRequest,
        example={"max_tokens": 1024, "messages": [{"role": "user", "content": "Hello!"}]},
        errors=ERRORS_OF_WORK,
        error=wire.ErrorMessage,
    ),
    ("POST", f"{PATH}/count_tokens"): Operation(
        summary="Count the tokens of a conversation's prompt.",
        content={JSON: TokenCount},
        body=CountTokensRequest,
        example={"messages": [{"role": "user", "content": "Hello!"}]},
        errors=ERRORS_OF_WORK,
        error=wire.ErrorMessage,
    ),
}


class Messages:
    """Anthropic's messages."""

    path = PATH
    error_body = staticmethod(wire.error_body)

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, MessagesReply]:
        request, neutral = parse_messages(MessagesRequest, content)
        return neutral, MessagesReply(request)


class MessagesReply:
    """One reply."""

    content_type = EVENT_STREAM
    model = ""

    def __init__(self, request: CountTokensRequest) -> None:
        self._id = f"msg_{secrets.token_hex(12)}"
        self._shows_thoughts = request.thinking is None or request.thinking.display != "omitted"
        self._begun = False
        self._index = -1
        """Number of the last block."""
        self._open: type[ContentBlock] | None = None
        """Type of that block; None if it has ended."""
        self._thought = hashlib.sha256()
        self._ended = Ended(0, 0, "stop")
        self._form: Form | None = None
        """Form of an event with text for the open block."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> AnthropicMessage:
        [answer] = answers
        content: list[ContentBlock] = []
        if answer.reasoning:
            self._thought.update(answer.reasoning.encode())
            content.append(Thinking(answer.reasoning if self._shows_thoughts else "", self._signature()))
        if answer.text or answer.refusal:
            content.append(Text(answer.text or answer.refusal))
        content += [ToolUse(call.id, call.name, input_of(call)) for call in answer.calls]
        ending = _ending(answer.reason, answer.stop_string)
        return self._message(content, usage, ending)

    def render(self, item: Event) -> Iterable[bytes]:
        if isinstance(item, Delta) and self._open is Text and item.text and not item.reasoning:
            return (self._more_text(item.text),)  # nearly all events of a stream
        return self._rendered(item)

    def _more_text(self, text: str) -> bytes:
        """Return the event for more text of the open block."""
        if self._form is None:
            self._form = Form(_sent(BlockDelta(self._index, TextGrowth(""))), b"text")
        return self._form.filled(text)

    def _rendered(self, item: Event) -> Iterator[bytes]:
        if isinstance(item, Relaxed):  # for a stream whose headers were sent before this was known
            yield comment({"relaxed": item.places})
        for each in self._events_of(item):
            yield _sent(each)

    def progress(self, progress: Progress) -> bytes:
        sent = b"".join(map(_sent, self._beginning()))
        return sent + comment({"progress": progress.facts()}) + _sent(Ping())

    def error(self, error: ApiError) -> bytes:
        return event(wire.error_body(error), name="error")

    def end(self) -> bytes:
        return _sent(MessageStop())

    def _events_of(self, item: Event) -> Iterator[StreamEvent]:
        match item:
            case Delta(text="", reasoning=False):
                return  # it carries only log probabilities
            case Delta(reasoning=True):
                yield from self._block(Thinking("", ""))
                self._thought.update(item.text.encode())
                if self._shows_thoughts:
                    yield BlockDelta(self._index, ThinkingGrowth(item.text))
            case Delta():
                yield from self._block(Text(""))
                yield BlockDelta(self._index, TextGrowth(item.text))
            case ToolStart():
                yield from self._close()
                yield from self._block(ToolUse(item.call_id, item.name, {}))
            case ToolArguments():
                yield BlockDelta(self._index, InputGrowth(item.text))
            case Ended():
                self._ended = item
                yield from self._beginning()
                yield from self._close()
            case Finished():
                ending = _ending(self._ended.reason, self._ended.stop_string)
                yield MessageDelta(ending, wire.usage(item))

    def _beginning(self) -> Iterator[StreamEvent]:
        """Yield the start of the message, once. The tokens of its prompt are known only at the end."""
        if not self._begun:
            self._begun = True
            yield MessageStart(self._message([], Finished(0, 0, 0), None))

    def _block(self, block: ContentBlock) -> Iterator[StreamEvent]:
        """Start a block, unless one of this kind is open."""
        if self._open is type(block):
            return
        yield from self._beginning()
        yield from self._close()
        self._index += 1
        self._open, self._form = type(block), None
        yield BlockStart(self._index, block)
        if self._index == 0:
            yield Ping()

    def _close(self) -> Iterator[StreamEvent]:
        if self._open is None:
            return
        if self._open is Thinking:
            yield BlockDelta(self._index, SignatureGrowth(self._signature()))
        yield BlockStop(self._index)
        self._open = None

    def _signature(self) -> str:
        """Return a checksum of a thinking block, for clients that require one. It is never checked."""
        signature = base64.b64encode(self._thought.digest()).decode()
        self._thought = hashlib.sha256()
        return signature

    def _message(self, content: list[ContentBlock], usage: Finished, ending: Ending | None) -> AnthropicMessage:
        return AnthropicMessage(
            id=self._id,
            model=self.model,
            content=content,
            stop_reason=ending.stop_reason if ending else None,
            stop_sequence=ending.stop_sequence if ending else None,
            usage=wire.usage(usage),
        )


def input_of(call: Call) -> dict[str, Any]:
    """Return the arguments of a call as an object; text that is not an object becomes its only member."""
    try:
        found = json.loads(call.arguments or "{}", strict=False)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {UNREADABLE: call.arguments}


def _ending(reason: protocol.StopReason, stop_string: str | None) -> Ending:
    if stop_string is not None:
        return Ending("stop_sequence", stop_string)
    return Ending(_REASONS[reason], None)


def _sent(each: StreamEvent) -> bytes:
    name: str = each.__struct_config__.tag  # type: ignore[assignment]  # every tag here is a string
    return event(each, name=name)
