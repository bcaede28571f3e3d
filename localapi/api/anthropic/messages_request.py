"""The body of `POST /v1/messages`: its fields and bounds, and the conversation that it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from localapi.api.message_draft import MessageDraft
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai.chat_request import MAX_MESSAGES, MAX_TOOLS
from localapi.api.openai.generation_request import MAX_NAME, Part, greedy_share, unknown_fields, without_empty
from localapi.backends.parameters import ChatParameters, Effort, FreeObject, StopString
from localapi.errors import InvalidRequest
from localapi.http.body import parse
from localapi.worker import protocol
from localapi.worker.protocol import Chat, FunctionCall, FunctionTool, JsonSchema, TextPart

NO_EFFECT: Final = frozenset(
    {
        "cache_control",
        "inference_geo",
        "metadata",
        "service_tier",
        "user_profile_id",
        "workspace_id",
    }
)
"""Anthropic's fields about the caller or billing, and cache hints, which change no answer."""
BILLING: Final = "x-anthropic-billing-header:"
"""How Claude Code begins a block of its system prompt that is for Anthropic's accounts and differs in every request."""
LOW_BUDGET, MEDIUM_BUDGET = 2048, 8192
"""Tokens of thinking up to which a budget counts as low or medium effort."""


class Block(Part):
    """A part of a message."""

    cache_control: Any = None
    """Where a cached prefix may end; the server finds that out by itself."""


class TextBlock(Block):
    type: Literal["text"]
    text: str
    citations: Any = None


class MediaSource(Part):
    """Where an image or a document is: in the request, at an address, or in Anthropic's storage."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[TextBlock] | None = None


class ImageBlock(Block):
    type: Literal["image"]
    source: MediaSource


class DocumentBlock(Block):
    type: Literal["document"]
    source: MediaSource
    title: str | None = None
    context: str | None = None
    citations: Any = None


class SearchResultBlock(Block):
    type: Literal["search_result"]
    title: str
    source: str
    content: list[TextBlock]
    citations: Any = None


class ThinkingBlock(Block):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Block):
    type: Literal["redacted_thinking"]
    data: str | None = None


class ToolUseBlock(Block):
    type: Literal["tool_use"]
    id: str
    name: str
    input: FreeObject
    caller: Any = None


class OtherBlock(Block):
    """A block of a type that is not known here."""

    type: str


def _type_among(*known: str) -> Any:
    """Return how a block's type is found: "other" if it is none of the known ones."""

    def type_of(value: Any) -> str:
        kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return kind if kind in known else "other"

    return Discriminator(type_of)


ResultBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageBlock, Tag("image")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[OtherBlock, Tag("other")],
    _type_among("text", "image", "document", "search_result"),
]


class ToolResultBlock(Block):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


UserBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ImageBlock, Tag("image")]
    | Annotated[DocumentBlock, Tag("document")]
    | Annotated[SearchResultBlock, Tag("search_result")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[OtherBlock, Tag("other")],
    _type_among("text", "image", "document", "search_result", "tool_result"),
]
AssistantBlock = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[OtherBlock, Tag("other")],
    _type_among("text", "thinking", "redacted_thinking", "tool_use"),
]


class UserTurn(Part):
    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantTurn(Part):
    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class SystemTurn(Part):
    role: Literal["system"]
    content: str | list[TextBlock]


Turn = Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]


class ToolDefinition(Part):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    description: str | None = None
    input_schema: FreeObject
    strict: bool | None = None
    cache_control: Any = None
    eager_input_streaming: bool | None = None


class HostedTool(Part):
    """A tool that Anthropic runs, or whose form only its models have learnt."""

    type: str
    name: str | None = None


def _kind_of_tool(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "custom" if kind in (None, "custom") else "hosted"


AnyTool = Annotated[
    Annotated[ToolDefinition, Tag("custom")] | Annotated[HostedTool, Tag("hosted")], Discriminator(_kind_of_tool)
]


class ToolChoice(Part):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Part):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Annotated[int | None, Field(ge=1)] = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Part):
    type: Literal["json_schema"]
    json_schema: Annotated[dict[str, Any] | bool, Field(alias="schema")]


class OutputConfig(Part):
    effort: Effort | None = None
    format: OutputFormat | None = None


class CountTokensRequest(ChatParameters):
    """A conversation. Parameters that Anthropic does not have are taken by OpenAI's names."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[AnyTool], Field(default_factory=list, max_length=MAX_TOOLS)]
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """The older name of `output_config.format`."""
    top_p: Annotated[float | None, Field(ge=0, le=1), AfterValidator(greedy_share)] = None
    stop_sequences: Annotated[
        Annotated[list[StopString], Field(max_length=16)] | None, BeforeValidator(without_empty)
    ] = None
    stream: bool = False

    def neutral(self, ignored: Sequence[str]) -> NeutralRequest:
        """Return the request as all dialects give it. Raise InvalidRequest."""
        conversation = Conversation()
        conversation.read(self)
        choice = self.tool_choice or ToolChoice(type="auto")
        if choice.type == "tool" and choice.name is None:
            raise InvalidRequest("tool_choice of type 'tool' needs the tool's name.", param="tool_choice.name")
        chat = Chat(
            id=0,
            messages=conversation.messages,
            form=self._form(),
            tools=[
                FunctionTool(tool.name, tool.description, tool.input_schema, tool.strict)
                for tool in self.tools
                if isinstance(tool, ToolDefinition)
            ],
            tool_choice=_CHOICES[choice.type],
            tool_name=choice.name if choice.type == "tool" else None,
            parallel_tool_calls=not choice.disable_parallel_tool_use,
            continues=conversation.continues,
        )
        unused = list(conversation.ignored)
        for at, tool in enumerate(self.tools):
            if isinstance(tool, HostedTool):
                unused.append(f"tools[{at}] ({tool.type})")
        # Of what has no effect as a whole, the fields are not named, too.
        whole = tuple(name.partition(" ")[0] + "." for name in unused)
        unused += [name for name in ignored if not name.startswith(whole)]
        if self.thinking is not None and self.thinking.budget_tokens is not None:
            unused.append("thinking.budget_tokens")  # it says how much to think, and is no limit
        effort_name = "output_config.effort" if self.thinking is None else "thinking"
        return NeutralRequest(
            model=self.model,
            asks=[chat],
            said=self.parameters(),
            usual={"reasoning_effort": "none"},
            names={
                "stop": ["stop_sequences"],
                "reasoning_effort": [effort_name],
                "response_format": ["output_config.format"],
                "continue_final_message": ["messages"],
                "parallel_tool_calls": ["tool_choice.disable_parallel_tool_use"],
                "image": conversation.images[:1],
            },
            wishes=frozenset({"reasoning_effort"}) if self.reasoning_effort is None else frozenset(),
            stream=self.stream,
            ignored=unused,
        )

    def parameters(self) -> ChatParameters:
        """Return the parameters that the client set."""
        said = ChatParameters.model_validate(
            self.model_dump(include=set(ChatParameters.model_fields), exclude_none=True)
        )
        changes: dict[str, Any] = {}
        if self.stop_sequences is not None:
            changes["stop"] = list(self.stop_sequences)
        if said.reasoning_effort is None:
            changes["reasoning_effort"] = self._effort()
        return said.model_copy(update=changes)

    def _effort(self) -> Effort | None:
        """Return how much to think; None if the request says nothing of it."""
        said = self.output_config.effort if self.output_config else None
        if self.thinking is None:
            return said
        if self.thinking.type in ("disabled", "between_tools"):
            return "none"
        budget = self.thinking.budget_tokens
        if said is not None or budget is None:
            return said or "medium"
        if budget <= LOW_BUDGET:
            return "low"
        return "medium" if budget <= MEDIUM_BUDGET else "high"

    def _form(self) -> JsonSchema | None:
        asked = self.output_config.format if self.output_config else None
        asked = asked or self.output_format
        return JsonSchema(json.dumps(asked.json_schema, ensure_ascii=False)) if asked else None


class MessagesRequest(CountTokensRequest):
    """The body."""

    max_tokens: Annotated[int, Field(ge=1)]


_CHOICES: Final[dict[str, Literal["none", "auto", "required"]]] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}


def parse_messages(
    shape: type[CountTokensRequest], content: dict[str, Any]
) -> tuple[CountTokensRequest, NeutralRequest]:
    """Return a body of this shape, and the request that it makes. Raise InvalidRequest."""
    known = {key: value for key, value in content.items() if key not in NO_EFFECT}
    request = parse(shape, known)
    return request, request.neutral(unknown_fields(request, known))


class Conversation:
    """The messages of a body. Turns of one role that follow each other are one, as Anthropic defines it."""

    def __init__(self) -> None:
        self._found: list[MessageDraft] = []
        self.ignored: list[str] = []
        """Blocks that have no effect."""
        self.images: list[str] = []
        """Where the body has images."""

    @property
    def messages(self) -> list[protocol.Message]:
        """Return the messages as engines take them."""
        return [message.neutral() for message in self._found]

    @property
    def continues(self) -> bool:
        """Return True if the answer continues the last message."""
        return bool(self._found) and self._found[-1].role == "assistant"

    def read(self, request: CountTokensRequest) -> None:
        """Read the system prompt and the turns. Raise InvalidRequest."""
        self._read_system("system", request.system or [])
        for at, turn in enumerate(request.messages):
            place = f"messages[{at}]"
            match turn:
                case SystemTurn():
                    self._read_system(f"{place}.content", turn.content)
                case UserTurn():
                    self._read_user(f"{place}.content", turn.content)
                case AssistantTurn():
                    self._read_assistant(f"{place}.content", turn.content)
        last = self._found[-1] if self._found else None
        if last is not None and last.role == "assistant" and not (last.parts or last.calls or last.thoughts):
            self._found.pop()  # an answer without a beginning

    def _last(self, role: str) -> MessageDraft:
        if not self._found or self._found[-1].role != role:
            self._found.append(MessageDraft(role))
        return self._found[-1]

    def _read_system(self, place: str, content: str | list[TextBlock]) -> None:
        for at, text in enumerate([content] if isinstance(content, str) else [block.text for block in content]):
            if text.startswith(BILLING):
                self.ignored.append(f"{place}[{at}]")
            elif text:
                self._last("system").parts.append(TextPart(text))

    def _read_user(self, place: str, content: str | list[UserBlock]) -> None:
        if isinstance(content, str):
            self._last("user").parts.append(TextPart(content))
            return
        for at, block in enumerate(content):
            where = f"{place}[{at}]"
            if isinstance(block, ToolResultBlock):
                parts = self._result(where, block)
                self._found.append(MessageDraft("tool", parts, call_id=block.tool_use_id))
            else:
                self._last("user").parts.extend(self._parts(where, block))

    def _read_assistant(self, place: str, content: str | list[AssistantBlock]) -> None:
        message = self._last("assistant")
        if isinstance(content, str):
            message.parts += [TextPart(content)] if content else []
            return
        for at, block in enumerate(content):
            match block:
                case TextBlock():
                    message.parts.append(TextPart(block.text))
                case ThinkingBlock():
                    message.thoughts += [block.thinking] if block.thinking else []
                case RedactedThinkingBlock():
                    pass  # only Anthropic can read it
                case ToolUseBlock():
                    message.calls.append(FunctionCall(block.id, block.name, block.input))
                case OtherBlock():  # what a tool of Anthropic's wrote
                    self.ignored.append(f"{place}[{at}] ({block.type})")

    def _result(self, place: str, block: ToolResultBlock) -> list[protocol.Part]:
        """Return what a tool said. Chat templates have no place for an error, so its text says that it is one."""
        parts: list[protocol.Part] = []
        if isinstance(block.content, str):
            parts.append(TextPart(block.content))
        else:
            for at, each in enumerate(block.content or ()):
                parts += self._parts(f"{place}.content[{at}]", each)
        if block.is_error:
            text = parts[0].text if parts and isinstance(parts[0], TextPart) else ""
            if not text.lower().startswith("error"):
                parts.insert(0, TextPart("Error:"))
        return parts

    def _parts(self, place: str, block: UserBlock | ResultBlock) -> Iterator[protocol.Part]:
        match block:
            case TextBlock():
                yield TextPart(block.text)
            case SearchResultBlock():
                yield TextPart("\n".join([block.title, block.source, *(each.text for each in block.content)]))
            case DocumentBlock():
                yield TextPart("\n".join(filter(None, [block.title, block.context, _text_of(block.source, place)])))
            case ImageBlock():
                self.images.append(f"{place}.type")
                yield protocol.ImagePart(_url_of(block.source, place))
            case _:
                raise _unsupported(f"Blocks of type {block.type!r}", f"{place}.type")


def _text_of(source: MediaSource, place: str) -> str:
    """Return the text of a document."""
    if source.type == "text" and source.data is not None:
        return source.data
    if source.type == "content" and source.content is not None:
        content = source.content
        return content if isinstance(content, str) else "\n".join(block.text for block in content)
    raise _unsupported(f"Documents with a source of type {source.type!r}", f"{place}.source.type")


def _url_of(source: MediaSource, place: str) -> str:
    """Return the address of an image, or a data: URL that holds it."""
    if source.type == "base64" and source.data is not None and source.media_type is not None:
        return f"data:{source.media_type};base64,{source.data}"
    if source.type == "url" and source.url is not None:
        return source.url
    raise _unsupported(f"Images with a source of type {source.type!r}", f"{place}.source.type")


def _unsupported(what: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"{what} are not supported here. Send text.", param=param, code="unsupported_content")
