"""`POST /api/chat` and `POST /api/generate`: responses as lines of JSON, or whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType
from quart import Blueprint

from localapi.api.answers import Answer, Call
from localapi.api.anthropic.messages import input_of
from localapi.api.dialect import DialectBlueprint
from localapi.api.logprobs import ChosenToken, chosen
from localapi.api.neutral_request import NeutralRequest
from localapi.api.ollama import wire
from localapi.api.ollama.text_request import OllamaChatRequest, OllamaGenerateRequest
from localapi.api.openai.generation_request import unknown_fields
from localapi.api.operation import ERRORS_OF_WORK, JSON, Operation, Operations
from localapi.errors import ApiError
from localapi.http.body import parse
from localapi.http.replies import Form, encode
from localapi.runtime.progress import Progress
from localapi.runtime.registry import Registry
from localapi.worker import protocol
from localapi.worker.protocol import Delta, Ended, Event, Finished, TokenLogprob, ToolArguments, ToolStart

DoneReason = Literal["stop", "length", "load", "unload"]
_NANOSECONDS: Final = 1_000_000_000


class OllamaCalledFunction(Struct):
    index: int
    name: str
    arguments: dict[str, Any]


class OllamaToolCall(Struct):
    id: str
    function: OllamaCalledFunction


class OllamaMessage(Struct, kw_only=True):
    """Response, or the next part of it."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaToolCall] | UnsetType = UNSET


class OllamaPart(Struct, kw_only=True):
    """Response, or a line of one. The last line has the times, in nanoseconds, and the token counts."""

    model: str
    created_at: str
    done: bool = False
    logprobs: list[ChosenToken] | UnsetType = UNSET
    done_reason: DoneReason | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class OllamaChatPart(OllamaPart, kw_only=True):
    """Response to a conversation, or a line of it."""

    message: OllamaMessage


class OllamaGeneratePart(OllamaPart, kw_only=True):
    """Response to a prompt, or a line of it."""

    response: str
    thinking: str | UnsetType = UNSET


def routes(registry: Registry) -> Blueprint:
    """Return both endpoints."""
    return DialectBlueprint(registry, OllamaChat(registry), OllamaGenerate(registry), paths=("/api/",))


OPERATIONS: Final[Operations] = {
    ("POST", "/api/chat"): Operation(
        summary="Generate a response to a conversation, in Ollama's form.",
        content={JSON: OllamaChatPart, wire.LINES: None},
        body=OllamaChatRequest,
        example={"messages": [{"role": "user", "content": "Hello!"}], "stream": False},
        errors=ERRORS_OF_WORK,
        error=wire.OllamaError,
    ),
    ("POST", "/api/generate"): Operation(
        summary="Generate a response to a prompt, in Ollama's form.",
        content={JSON: OllamaGeneratePart, wire.LINES: None},
        body=OllamaGenerateRequest,
        example={"prompt": "Hello!", "stream": False},
        errors=ERRORS_OF_WORK,
        error=wire.OllamaError,
    ),
}


class OllamaChat:
    """Ollama's chat."""

    path = "/api/chat"
    error_body = staticmethod(wire.error_body)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, OllamaReply]:
        body = parse(OllamaChatRequest, content)
        name = wire.known_name(self._registry, body.model)
        return body.neutral(name, unknown_fields(body, content)), OllamaReply(OllamaChatPart, body.keep_alive)


class OllamaGenerate:
    """Ollama's generate."""

    path = "/api/generate"
    error_body = staticmethod(wire.error_body)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, OllamaReply]:
        body = parse(OllamaGenerateRequest, content)
        name = wire.known_name(self._registry, body.model)
        return body.neutral(name, unknown_fields(body, content)), OllamaReply(OllamaGeneratePart, body.keep_alive)


class OllamaReply:
    """One reply, of either endpoint."""

    content_type = wire.LINES
    model = ""

    def __init__(self, shape: type[OllamaChatPart | OllamaGeneratePart], keep_alive: float | None) -> None:
        self._shape = shape
        self._load: DoneReason = "unload" if keep_alive == 0 else "load"
        self._call: Call | None = None
        """Call whose arguments are incomplete: Ollama's clients expect whole calls."""
        self._calls = 0
        self._reason: protocol.StopReason = "stop"
        self._form: Form | None = None
        """Form of a line with only text."""
        self._form_of = ""
        """Time in that form."""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> OllamaPart:
        if not answers:
            return self._part(done=True, done_reason=self._load)
        [answer, *_] = answers
        calls = [_tool_call(at, call) for at, call in enumerate(answer.calls)]
        text = answer.text or answer.refusal
        return self._part(text, answer.reasoning, calls, answer.tokens, **_end(answer.reason, usage))

    def render(self, item: Event) -> Iterable[bytes]:
        if isinstance(item, Delta) and item.text and not (item.reasoning or item.logprobs):
            return (self._line_of_text(item.text),)  # nearly all events of a stream
        return self._lines(item)

    def _lines(self, item: Event) -> Iterator[bytes]:
        for part in self._parts_of(item):
            yield encode(part) + b"\n"

    def _line_of_text(self, text: str) -> bytes:
        now = wire.now()
        if self._form is None or now != self._form_of:
            key = b"response" if self._shape is OllamaGeneratePart else b"content"
            self._form, self._form_of = Form(encode(self._part()) + b"\n", key), now
        return self._form.filled(text)

    def progress(self, progress: Progress) -> bytes:
        """Return a space before the next line, which keeps the connection alive and is invisible to clients."""
        return b" "

    def error(self, error: ApiError) -> bytes:
        return encode(wire.error_body(error)) + b"\n"

    def end(self) -> bytes:
        return b""

    def _parts_of(self, item: Event) -> Iterator[OllamaPart]:
        match item:
            case Delta():
                if item.reasoning:
                    yield self._part("", item.text, tokens=item.logprobs)
                elif item.text or item.logprobs:
                    yield self._part(item.text, tokens=item.logprobs)
            case ToolStart():
                yield from self._called()
                self._call = Call(item.call_id, item.name)
            case ToolArguments():
                if self._call is not None:
                    self._call.arguments += item.text
            case Ended():
                yield from self._called()
                self._reason = item.reason
            case Finished():
                yield self._part(**_end(self._reason, item))

    def _called(self) -> Iterator[OllamaPart]:
        if self._call is not None:
            yield self._part(calls=[_tool_call(self._calls, self._call)])
            self._calls += 1
            self._call = None

    def _part(
        self,
        text: str = "",
        reasoning: str = "",
        calls: Sequence[OllamaToolCall] = (),
        tokens: Sequence[TokenLogprob] = (),
        **more: Any,
    ) -> OllamaPart:
        part: OllamaPart
        if self._shape is OllamaGeneratePart:
            part = OllamaGeneratePart(model=self.model, created_at=wire.now(), response=text, **more)
            if reasoning:
                part.thinking = reasoning
        else:
            message = OllamaMessage(content=text)
            if reasoning:
                message.thinking = reasoning
            if calls:
                message.tool_calls = list(calls)
            part = OllamaChatPart(model=self.model, created_at=wire.now(), message=message, **more)
        if tokens:
            part.logprobs = chosen(tokens)
        return part


def _end(reason: protocol.StopReason, usage: Finished) -> dict[str, Any]:
    """Return the fields of the last line."""
    seconds = usage.load_seconds + usage.prompt_seconds + usage.answer_seconds
    return {
        "done": True,
        "done_reason": "length" if reason == "length" else "stop",
        "total_duration": int(seconds * _NANOSECONDS),
        "load_duration": int(usage.load_seconds * _NANOSECONDS),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": int(usage.prompt_seconds * _NANOSECONDS),
        "eval_count": usage.completion_tokens,
        "eval_duration": int(usage.answer_seconds * _NANOSECONDS),
    }


def _tool_call(index: int, call: Call) -> OllamaToolCall:
    return OllamaToolCall(call.id, OllamaCalledFunction(index, call.name, input_of(call)))
