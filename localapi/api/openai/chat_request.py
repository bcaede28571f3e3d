"""The body of `POST /v1/chat/completions`: its fields and bounds, and OpenAI's fields that are not supported."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag

from localapi.api.neutral_request import NeutralRequest, unknown_tool
from localapi.api.openai.custom_tools import CUSTOM_INPUT, TEXT_ARGUMENT
from localapi.api.openai.generation_request import (
    BodyObject,
    GenerationRequest,
    Grammar,
    MaxTokens,
    Pattern,
    form_of,
    refuse,
    unknown_fields,
)
from localapi.backends.parameters import ChatParameters, FreeObject
from localapi.errors import InvalidRequest
from localapi.http.body import parse
from localapi.worker import protocol
from localapi.worker.protocol import Chat, Form, JsonObject, JsonSchema

MAX_MESSAGES: Final = 100_000
MAX_TOOLS: Final = 1000
_FUNCTION, _TEXT = "tool with JSON", "tool with text"
"""Kinds of tools in errors of pydantic. They are no keys of a body, which `param` is made of."""
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except ValueError:
        raise ValueError("should be a file in base64") from None
    return value


class TextPart(BodyObject):
    type: Literal["text"]
    text: str


class RefusalPart(BodyObject):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(BodyObject):
    url: str
    detail: str | None = None


class ImagePart(BodyObject):
    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(BodyObject):
    data: Annotated[str, AfterValidator(_base64)]
    format: str


class AudioPart(BodyObject):
    type: Literal["input_audio"]
    input_audio: InputAudio


Content = str | list[TextPart]
UserContent = str | list[Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]]
USER_PARTS: Final = frozenset({"text", "refusal", "image_url", "input_audio"})
"""Types that are parsed; which of them a model reads is its backend's to say."""
AssistantContent = str | list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]]


class InstructionMessage(BodyObject):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(BodyObject):
    role: Literal["user"]
    content: UserContent
    name: str | None = None


class CalledFunction(BodyObject):
    name: str
    arguments: str | FreeObject | None = None
    """Text written by the model, JSON or not; some clients send an object instead."""


class ToolCall(BodyObject):
    id: str
    type: Literal["function"] | None = "function"
    function: CalledFunction


class CalledCustom(BodyObject):
    name: str
    input: str


class CustomCall(BodyObject):
    id: str
    type: Literal["custom"]
    custom: CalledCustom


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return _TEXT if kind == "custom" else _FUNCTION


Call = Annotated[Annotated[ToolCall, Tag(_FUNCTION)] | Annotated[CustomCall, Tag(_TEXT)], Discriminator(_kind)]


class AssistantMessage(BodyObject):
    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None


class ToolMessage(BodyObject):
    role: Literal["tool"]
    content: Content | None = None
    tool_call_id: str


Message = Annotated[InstructionMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class Function(BodyObject):
    name: FunctionName
    description: str | None = None
    parameters: FreeObject | None = None
    strict: bool | None = None

    @property
    def neutral(self) -> protocol.FunctionTool:
        """The tool as engines take it."""
        return protocol.FunctionTool(self.name, self.description, self.parameters, self.strict)


class Custom(BodyObject):
    """A tool whose argument is text."""

    name: FunctionName
    description: str | None = None

    @property
    def neutral(self) -> protocol.FunctionTool:
        """The tool as engines take it."""
        return protocol.FunctionTool(self.name, self.description, TEXT_ARGUMENT)


class FunctionTool(BodyObject):
    type: Literal["function"]
    function: Function

    @property
    def definition(self) -> Function:
        """The tool itself."""
        return self.function


class CustomTool(BodyObject):
    type: Literal["custom"]
    custom: Custom

    @property
    def definition(self) -> Custom:
        """The tool itself."""
        return self.custom


Tool = Annotated[Annotated[FunctionTool, Tag(_FUNCTION)] | Annotated[CustomTool, Tag(_TEXT)], Discriminator(_kind)]


class Named(BodyObject):
    name: str


class NamedFunction(BodyObject):
    type: Literal["function"]
    function: Named

    @property
    def name(self) -> str:
        """Name of the tool."""
        return self.function.name


class NamedCustom(BodyObject):
    type: Literal["custom"]
    custom: Named

    @property
    def name(self) -> str:
        """Name of the tool."""
        return self.custom.name


class AllowedTools(BodyObject):
    mode: Literal["auto", "required"]
    tools: list[Annotated[NamedFunction | NamedCustom, Field(discriminator="type")]]


class AllowedToolsChoice(BodyObject):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class TextFormat(BodyObject):
    type: Literal["text"]


class JsonObjectFormat(BodyObject):
    type: Literal["json_object"]
    json_schema: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None
    """The object's schema: an extension of llama.cpp and others."""


class NamedSchema(BodyObject):
    name: str | None = None
    json_schema: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None
    strict: bool | None = None


class JsonSchemaFormat(BodyObject):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
ToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[NamedFunction | NamedCustom | AllowedToolsChoice, Field(discriminator="type")]
)

_NOT_HONOURED: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "web_search_options": (),
}
"""Parameters that this server does not support, with the values that ask for nothing."""


class ChatRequest(GenerationRequest, ChatParameters):
    """The body."""

    model_config = ConfigDict(extra="allow")

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: MaxTokens = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    tools: Annotated[list[Tool], Field(default_factory=list, max_length=MAX_TOOLS)]
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    regex: Pattern | None = None
    grammar: Grammar | None = None
    continue_final_message: bool = False

    def neutral(self, ignored: Sequence[str], content: dict[str, Any]) -> NeutralRequest:
        """Return the request as all dialects give it. `content` is the body."""
        tools, choice, name = self._tools()
        chat = Chat(
            id=0,
            messages=[neutral_message(message) for message in self.messages],
            n=self.n,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            form=self._form(),
            tools=[tool.definition.neutral for tool in tools],
            tool_choice=choice,
            tool_name=name,
            parallel_tool_calls=self.parallel_tool_calls,
            continues=self.continue_final_message,
            original=content,
        )
        limits = [name for name in ("max_tokens", "max_completion_tokens") if getattr(self, name) is not None]
        return NeutralRequest(
            model=self.model,
            asks=[chat],
            said=self.parameters(),
            names={"max_tokens": limits},
            keep_alive=self.keep_alive,
            stream=self.stream,
            ignored=ignored,
        )

    def parameters(self) -> ChatParameters:
        """Return the parameters that the client set. `max_completion_tokens` is the newer name of `max_tokens`."""
        said = super().parameters()
        if self.max_completion_tokens is None:
            return said
        return said.model_copy(update={"max_tokens": self.max_completion_tokens})

    def _tools(self) -> tuple[list[Tool], Literal["none", "auto", "required"], str | None]:
        """Return the tools that the model may use, how, and the one that it must use."""
        match self.tool_choice:
            case NamedFunction(name=name) | NamedCustom(name=name):
                return self.tools, "required", name
            case AllowedToolsChoice(allowed_tools=allowed):
                names = {tool.name for tool in allowed.tools}
                return [tool for tool in self.tools if tool.definition.name in names], allowed.mode, None
            case None:
                return self.tools, "auto", None
            case mode:
                return self.tools, mode, None

    @property
    def custom_tools(self) -> frozenset[str]:
        """Names of the tools whose argument is text."""
        return frozenset(tool.custom.name for tool in self.tools if isinstance(tool, CustomTool))

    def _form(self) -> Form | None:
        if (form := form_of(self.regex, self.grammar)) is not None:
            return form
        match self.response_format:
            case JsonObjectFormat(json_schema=schema):
                strict = False
            case JsonSchemaFormat(json_schema=NamedSchema(json_schema=schema, strict=said)):
                strict = bool(said)
            case _:
                return None
        return JsonObject() if schema is None else JsonSchema(json.dumps(schema, ensure_ascii=False), strict)

    def check(self) -> None:
        """Check what no single field can tell, and no other dialect needs. Raise InvalidRequest."""
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
        forms = [
            name
            for name in ("regex", "grammar", "response_format")
            if getattr(self, name) not in (None, TextFormat(type="text"))
        ]
        if len(forms) > 1:
            raise InvalidRequest(f"Give one of {' and '.join(forms)}, not several.", param=forms[1])
        if isinstance(self.tool_choice, AllowedToolsChoice):
            names = [tool.definition.name for tool in self.tools]
            for tool in self.tool_choice.allowed_tools.tools:
                if tool.name not in names:
                    raise unknown_tool(tool.name, names)


def parse_chat(content: dict[str, Any]) -> tuple[ChatRequest, list[str]]:
    """Return the request, and the names of the fields that have no effect. Raise InvalidRequest."""
    known = refuse(content, _NOT_HONOURED)
    _refuse_other_parts(content.get("messages"))
    request = parse(ChatRequest, known)
    request.check()
    return request, unknown_fields(request, known)


def _refuse_other_parts(messages: object) -> None:
    """Refuse parts of other types with a clear message, before pydantic lists the types that it knows."""
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        known = USER_PARTS if isinstance(message, dict) and message.get("role") == "user" else {"text", "refusal"}
        for place, part in enumerate(content if isinstance(content, list) else ()):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in known:
                raise InvalidRequest(
                    f"Message parts of type {kind!r} are not supported here. Send text.",
                    param=f"messages[{at}].content[{place}].type",
                    code="unsupported_content",
                )


def neutral_message(message: Message) -> protocol.Message:
    """Return the message as engines take it."""
    content = message.content
    parts: str | list[protocol.Part] = ""
    if isinstance(content, list):
        parts = [_part(part) for part in content]
    elif content is not None:
        parts = content
    elif isinstance(message, AssistantMessage):
        parts = message.refusal or ""
    calls: list[protocol.FunctionCall] = []
    if isinstance(message, AssistantMessage):
        for call in message.tool_calls or ():
            if isinstance(call, CustomCall):
                calls.append(protocol.FunctionCall(call.id, call.custom.name, {CUSTOM_INPUT: call.custom.input}))
            else:
                calls.append(protocol.FunctionCall(call.id, call.function.name, call.function.arguments or ""))
    return protocol.Message(
        message.role,
        parts,
        name=None if isinstance(message, ToolMessage) else message.name,
        reasoning=message.reasoning_content if isinstance(message, AssistantMessage) else None,
        calls=calls,
        call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
    )


def _part(part: TextPart | RefusalPart | ImagePart | AudioPart) -> protocol.Part:
    match part:
        case TextPart():
            return protocol.TextPart(part.text)
        case RefusalPart():
            return protocol.TextPart(part.refusal)
        case ImagePart():
            return protocol.ImagePart(part.image_url.url, part.image_url.detail)
        case AudioPart():
            return protocol.AudioPart(base64.b64decode(part.input_audio.data), part.input_audio.format)
