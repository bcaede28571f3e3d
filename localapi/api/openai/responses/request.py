"""The body of `POST /v1/responses`: its fields and bounds, and the neutral request that it makes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag

from localapi.api.keep_alive import KeepAlive
from localapi.api.neutral_request import NeutralRequest, unknown_tool
from localapi.api.openai.chat_request import MAX_MESSAGES, MAX_TOOLS, FunctionName
from localapi.api.openai.generation_request import (
    MAX_NAME,
    BodyObject,
    MaxTokens,
    StreamOptions,
    greedy_share,
    refuse,
    unknown_fields,
)
from localapi.api.openai.responses.items import CUSTOM_INPUT, Conversation, InputItem
from localapi.backends.parameters import ChatParameters, Effort, FreeObject
from localapi.errors import InvalidRequest
from localapi.http.body import parse
from localapi.worker.protocol import Chat, Form, FunctionTool, JsonObject, JsonSchema

ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDABLE: Final = frozenset({ENCRYPTED, LOGPROBS, "message.input_image.image_url"})
_HERE: Final = frozenset({"metadata", "store"})
"""Fields without effect on chat completions that have one here."""
_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {"conversation": (), "prompt": ()}
"""Objects that OpenAI keeps, and that this server does not."""
TEXT_ARGUMENT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {CUSTOM_INPUT: {"type": "string"}},
    "required": [CUSTOM_INPUT],
    "additionalProperties": False,
}
"""Schema of a custom tool's arguments."""

Shape = TypeVar("Shape", bound="InputTokensRequest")
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
Metadata = Annotated[dict[MetadataKey, Annotated[str, StringConstraints(max_length=512)]], Field(max_length=16)]


class FunctionDefinition(BodyObject):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: FreeObject | None = None
    strict: bool | None = None


class TextInputFormat(BodyObject):
    type: str


class CustomDefinition(BodyObject):
    """A tool whose argument is text."""

    type: Literal["custom"]
    name: FunctionName
    description: str | None = None
    format: TextInputFormat | None = None


class HostedTool(BodyObject):
    """A tool that OpenAI runs, or of a type that is not known here."""

    type: str


def _tool_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("function", "custom") else "hosted"


Tool = Annotated[
    Annotated[FunctionDefinition, Tag("function")]
    | Annotated[CustomDefinition, Tag("custom")]
    | Annotated[HostedTool, Tag("hosted")],
    Discriminator(_tool_tag),
]


class NamedTool(BodyObject):
    type: Literal["function", "custom"]
    name: str


class AllowedTools(BodyObject):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[FreeObject]


class TextFormat(BodyObject):
    type: Literal["text"]


class JsonObjectFormat(BodyObject):
    type: Literal["json_object"]


class JsonSchemaFormat(BodyObject):
    type: Literal["json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: Annotated[dict[str, Any] | bool, Field(alias="schema")]
    strict: bool | None = None


class TextConfig(BodyObject):
    format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(BodyObject):
    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """The older name of `summary`."""

    @property
    def summarized(self) -> bool:
        """True if reasoning is to be sent as its summary."""
        return (self.summary or self.generate_summary or "none") != "none"


def _items(value: object) -> object:
    """Return text as the one message that it stands for."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class InputTokensRequest(ChatParameters):
    """A conversation. Parameters that this endpoint of OpenAI's does not have are taken by their names in chat."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    input: Annotated[
        Annotated[list[InputItem], Field(max_length=MAX_MESSAGES)], BeforeValidator(_items, json_schema_input_type=Any)
    ] = Field(default_factory=list)
    instructions: str | None = None
    previous_response_id: Annotated[str | None, Field(min_length=1, max_length=MAX_NAME)] = None
    tools: Annotated[list[Tool], Field(default_factory=list, max_length=MAX_TOOLS)]
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool = True
    text: TextConfig = TextConfig()
    reasoning: Reasoning = Reasoning()
    truncation: Literal["auto", "disabled"] = "disabled"
    top_p: Annotated[float | None, Field(ge=0, le=1), AfterValidator(greedy_share)] = None
    keep_alive: KeepAlive = None

    def neutral(self, history: Sequence[InputItem], ignored: Sequence[str]) -> NeutralRequest:
        """Return the request as all dialects give it. `history` comes before the input. Raise InvalidRequest."""
        conversation = Conversation()
        if self.instructions:
            conversation.instruct(self.instructions)
        conversation.read(history, "previous_response_id")
        conversation.ignored.clear()  # they were named when they were sent
        conversation.read(self.input, "input")
        if not self.input and not history:
            raise InvalidRequest(
                "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
            )
        tools, unread = self._tools()
        mode, name = self._choice()
        if isinstance(self.tool_choice, AllowedTools):
            tools = self._allowed(self.tool_choice, tools)
        chat = Chat(
            id=0,
            messages=conversation.messages,
            top_logprobs=self.likely_tokens,
            form=self._form(),
            tools=tools,
            tool_choice=mode,
            tool_name=name,
            parallel_tool_calls=self.parallel_tool_calls,
        )
        unused = [*conversation.ignored, *unread, *self.unused()]
        # Of what has no effect as a whole, the fields are not named, too.
        whole = tuple(name.partition(" ")[0] + "." for name in unused)
        unused += [name for name in ignored if not name.startswith(whole)]
        return NeutralRequest(
            model=self.model,
            asks=[chat],
            said=self.parameters(),
            names={
                "system": ["instructions"],
                "messages": ["input"],
                "max_tokens": ["max_output_tokens"],
                "reasoning_effort": ["reasoning.effort"],
                "response_format": ["text.format"],
                "logprobs": ["top_logprobs"],
                **conversation.media,
            },
            wishes=frozenset({"reasoning_effort"}) if self.reasoning_effort is None else frozenset(),
            keep_alive=self.keep_alive,
            stream=self.streams,
            ignored=unused,
        )

    @property
    def likely_tokens(self) -> int | None:
        """Number of likeliest tokens to report; None if no log probabilities are wanted."""
        return None

    @property
    def streams(self) -> bool:
        """True if the answer is to come as it is made."""
        return False

    def unused(self) -> list[str]:
        """Return the fields that have no effect, although they are known."""
        return [] if self.text.verbosity in (None, "medium") else ["text.verbosity"]

    def parameters(self) -> ChatParameters:
        """Return the parameters that the client set."""
        said = ChatParameters.model_validate(
            self.model_dump(include=set(ChatParameters.model_fields), exclude_none=True)
        )
        if self.reasoning.effort is None:
            return said
        return said.model_copy(update={"reasoning_effort": self.reasoning.effort})

    def check(self) -> None:
        """Check what no single field can tell. Raise InvalidRequest."""

    def _tools(self) -> tuple[list[FunctionTool], list[str]]:
        """Return the tools that the client runs, and what of the others has no effect."""
        found: list[FunctionTool] = []
        unread: list[str] = []
        for at, tool in enumerate(self.tools):
            match tool:
                case FunctionDefinition():
                    found.append(FunctionTool(tool.name, tool.description, tool.parameters, tool.strict))
                case CustomDefinition():
                    found.append(FunctionTool(tool.name, tool.description, TEXT_ARGUMENT))
                    if tool.format is not None and tool.format.type != "text":
                        unread.append(f"tools[{at}].format")
                case HostedTool():
                    unread.append(f"tools[{at}] ({tool.type})")
        return found, unread

    def _choice(self) -> tuple[Literal["none", "auto", "required"], str | None]:
        """Return how tools may be used, and the one that must be called."""
        match self.tool_choice:
            case NamedTool(name=name):
                return "required", name
            case AllowedTools(mode=mode):
                return mode, None
            case None:
                return "auto", None
            case said:
                return said, None

    def _allowed(self, allowed: AllowedTools, tools: list[FunctionTool]) -> list[FunctionTool]:
        """Return the tools that may be called now. Raise InvalidRequest for one that is not there."""
        names = [tool.name for tool in tools]
        wanted = [str(each.get("name")) for each in allowed.tools if each.get("type") in ("function", "custom")]
        for name in wanted:
            if name not in names:
                raise unknown_tool(name, names)
        return [tool for tool in tools if tool.name in wanted]

    def _form(self) -> Form | None:
        match self.text.format:
            case JsonObjectFormat():
                return JsonObject()
            case JsonSchemaFormat(json_schema=schema, strict=strict):
                return JsonSchema(json.dumps(schema, ensure_ascii=False), bool(strict))
            case _:
                return None


class ResponsesRequest(InputTokensRequest):
    """The body."""

    max_output_tokens: MaxTokens = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    include: list[str] = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    store: bool = True
    background: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tool_calls: Annotated[int | None, Field(ge=1)] = None

    @property
    def likely_tokens(self) -> int | None:
        """Number of likeliest tokens to report; None if no log probabilities are wanted."""
        wanted = LOGPROBS in self.include or bool(self.top_logprobs)
        return (self.top_logprobs or 0) if wanted else None

    @property
    def streams(self) -> bool:
        """True if the answer is to come as it is made."""
        return self.stream

    def unused(self) -> list[str]:
        """Return the fields that have no effect, although they are known."""
        ignored = [f"include ({name})" for name in self.include if name not in _INCLUDABLE]
        if self.max_tool_calls is not None:
            ignored.append("max_tool_calls")
        return [*super().unused(), *ignored]

    def parameters(self) -> ChatParameters:
        """Return the parameters that the client set."""
        said = super().parameters()
        if self.max_output_tokens is None:
            return said
        return said.model_copy(update={"max_tokens": self.max_output_tokens})

    def check(self) -> None:
        """Check what no single field can tell. Raise InvalidRequest."""
        super().check()
        if self.background and not self.store:
            raise InvalidRequest(
                "A response in the background has to be stored. Leave out 'store: false'.", param="background"
            )


def parse_response(shape: type[Shape], content: Mapping[str, Any]) -> tuple[Shape, list[str]]:
    """Return a body of this shape, and the names of fields that have no effect. Raise InvalidRequest."""
    known = refuse(content, _REFUSED) | {name: content[name] for name in _HERE & content.keys()}
    request = parse(shape, known)
    request.check()
    return request, unknown_fields(request, known)
