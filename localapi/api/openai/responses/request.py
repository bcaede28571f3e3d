"""Body of `POST /v1/responses`: its fields and bounds, and the neutral request that it makes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints

from localapi.api.keep_alive import KeepAlive
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai.chat_request import MAX_MESSAGES, MAX_TOOLS
from localapi.api.openai.generation_request import (
    MAX_NAME,
    BodyObject,
    MaxTokens,
    StreamOptions,
    greedy_share,
    refuse,
    unknown_fields,
)
from localapi.api.openai.responses.items import Conversation, InputItem
from localapi.api.openai.responses.tools import AllowedTools, NamedTool, Offered, Tool, allowed, named, offered
from localapi.backends.parameters import ChatParameters, Effort
from localapi.errors import InvalidRequest
from localapi.http.body import RequestBody, parse
from localapi.worker.protocol import Chat, Form, JsonObject, JsonSchema

ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDABLE: Final = frozenset({ENCRYPTED, LOGPROBS, "message.input_image.image_url"})
_HERE: Final = frozenset({"metadata", "store"})
"""Fields that have no effect in chat completions, but have one here."""
_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {"conversation": (), "prompt": ()}
"""Objects that OpenAI stores, and this server does not."""

Shape = TypeVar("Shape", bound="InputTokensRequest")
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
Metadata = Annotated[dict[MetadataKey, Annotated[str, StringConstraints(max_length=512)]], Field(max_length=16)]


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
        """True if reasoning should be sent as its summary."""
        return (self.summary or self.generate_summary or "none") != "none"


def _items(value: object) -> object:
    """Return a string as the single message that it stands for."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class InputTokensRequest(RequestBody, ChatParameters):
    """Conversation. Parameters that this endpoint of OpenAI's does not have are accepted by their names in chat."""

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
        """Return the neutral request. `history` precedes the input. Raise InvalidRequest."""
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
        tools, unread = offered(self.tools)
        mode, name = self._choice(tools)
        if isinstance(self.tool_choice, AllowedTools):
            tools = allowed(tools, self.tool_choice)
        chat = Chat(
            id=0,
            messages=conversation.messages,
            top_logprobs=self.likely_tokens,
            form=self._form(),
            tools=[tool.function for tool in tools],
            tool_choice=mode,
            tool_name=name,
            parallel_tool_calls=self.parallel_tool_calls,
        )
        unused = [*conversation.ignored, *unread, *self.unused()]
        # Fields of a part that has no effect as a whole are not named separately.
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
        """Number of likeliest tokens to report; None if no log probabilities are requested."""
        return None

    @property
    def streams(self) -> bool:
        """True if the response is streamed."""
        return False

    def unused(self) -> list[str]:
        """Return the known fields that have no effect."""
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
        """Check combinations of fields. Raise InvalidRequest."""

    def _choice(self, tools: Sequence[Offered]) -> tuple[Literal["none", "auto", "required"], str | None]:
        """Return how tools may be used, and the tool that must be called."""
        match self.tool_choice:
            case NamedTool(name=name):
                return "required", named(tools, name)
            case AllowedTools(mode=mode):
                return mode, None
            case None:
                return "auto", None
            case said:
                return said, None

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
        """Number of likeliest tokens to report; None if no log probabilities are requested."""
        wanted = LOGPROBS in self.include or bool(self.top_logprobs)
        return (self.top_logprobs or 0) if wanted else None

    @property
    def streams(self) -> bool:
        """True if the response is streamed."""
        return self.stream

    def unused(self) -> list[str]:
        """Return the known fields that have no effect."""
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
        """Check combinations of fields. Raise InvalidRequest."""
        super().check()
        if self.background and not self.store:
            raise InvalidRequest(
                "A response in the background must be stored. Remove 'store: false'.", param="background"
            )


def parse_response(shape: type[Shape], content: Mapping[str, Any]) -> tuple[Shape, list[str]]:
    """Return a body of this shape, and the names of fields without effect. Raise InvalidRequest."""
    known = refuse(content, _REFUSED) | {name: content[name] for name in _HERE & content.keys()}
    request = parse(shape, known)
    request.check()
    return request, unknown_fields(request, known)
