"""Body of `POST /v1/messages`: its fields and bounds, and the neutral request that it makes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from localapi.api.anthropic.conversation import Conversation
from localapi.api.anthropic.turns import TextBlock, Turn
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai.chat_request import MAX_MESSAGES, MAX_TOOLS
from localapi.api.openai.generation_request import MAX_NAME, BodyObject, greedy_share, unknown_fields, without_empty
from localapi.backends.parameters import ChatParameters, Effort, FreeObject, StopString
from localapi.errors import InvalidRequest, NoThreads
from localapi.http.body import RequestBody, parse
from localapi.worker.protocol import Chat, FunctionTool, JsonSchema

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
"""Fields of Anthropic's about the caller or billing, and cache hints, which do not change the response."""
LOW_BUDGET, MEDIUM_BUDGET = 2048, 8192
"""Thinking tokens up to which a budget counts as low or medium effort."""


class ToolDefinition(BodyObject):
    """A tool that the client runs."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    description: str | None = None
    input_schema: FreeObject
    strict: bool | None = None
    cache_control: Any = None
    eager_input_streaming: bool | None = None


class HostedTool(BodyObject):
    """Tool that Anthropic runs, or whose form only its models have learnt."""

    type: str
    name: str | None = None


def _kind_of_tool(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "custom" if kind in (None, "custom") else "hosted"


AnyTool = Annotated[
    Annotated[ToolDefinition, Tag("custom")] | Annotated[HostedTool, Tag("hosted")], Discriminator(_kind_of_tool)
]


class ToolChoice(BodyObject):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(BodyObject):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Annotated[int | None, Field(ge=1)] = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(BodyObject):
    type: Literal["json_schema"]
    json_schema: Annotated[dict[str, Any] | bool, Field(alias="schema")]


class OutputConfig(BodyObject):
    effort: Effort | None = None
    format: OutputFormat | None = None


class CountTokensRequest(RequestBody, ChatParameters):
    """Conversation. Parameters that Anthropic does not have are accepted by OpenAI's names."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, defer_build=True)

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[AnyTool], Field(default_factory=list, max_length=MAX_TOOLS)]
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """Older name of `output_config.format`."""
    top_p: Annotated[float | None, Field(ge=0, le=1), AfterValidator(greedy_share)] = None
    stop_sequences: Annotated[
        Annotated[list[StopString], Field(max_length=16)] | None, BeforeValidator(without_empty)
    ] = None
    stream: bool = False

    def neutral(self, ignored: Sequence[str]) -> NeutralRequest:
        """Return the neutral request. Raise InvalidRequest."""
        conversation = Conversation()
        conversation.read(self.system or [], self.messages)
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
        # Fields of a part that has no effect as a whole are not named separately.
        whole = tuple(name.partition(" ")[0] + "." for name in unused)
        unused += [name for name in ignored if not name.startswith(whole)]
        if self.thinking is not None and self.thinking.budget_tokens is not None:
            unused.append("thinking.budget_tokens")  # it sets an amount of thinking, not a limit
        effort_name = "output_config.effort" if self.thinking is None else "thinking"
        return NeutralRequest(
            model=self.model,
            asks=[chat],
            said=self.parameters(),
            usual={"reasoning_effort": "none"},
            names={
                "system": ["system"],
                "stop": ["stop_sequences"],
                "reasoning_effort": [effort_name],
                "response_format": ["output_config.format"],
                "continue_final_message": ["messages"],
                "parallel_tool_calls": ["tool_choice.disable_parallel_tool_use"],
                "image": conversation.images,
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
        """Return the effort of thinking; None if the request does not set it."""
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
    """Return a body of this shape, and its neutral request. Raise InvalidRequest."""
    if "thread" in content:
        raise NoThreads(
            "This server does not store conversations. Send all messages with each request, without 'thread'.",
            param="thread",
        )
    known = {key: value for key, value in content.items() if key not in NO_EFFECT}
    request = parse(shape, known)
    return request, request.neutral(unknown_fields(request, known))
