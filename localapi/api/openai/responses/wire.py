"""Structs that are sent: responses, their items and usage, and the events of a stream."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from localapi.api.logprobs import ChosenToken
from localapi.errors import ApiError
from localapi.http.replies import told
from localapi.worker.protocol import Finished

Status = Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]
PartType = Literal["response.content_part.added", "response.content_part.done"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(Struct, tag="output_text", tag_field="type", kw_only=True):
    text: str
    annotations: list[str] = []
    logprobs: list[ChosenToken] = []


class OutputRefusal(Struct, tag="refusal", tag_field="type"):
    refusal: str


class SummaryText(Struct, tag="summary_text", tag_field="type"):
    text: str


class ReasoningText(Struct, tag="reasoning_text", tag_field="type"):
    text: str


class OutputMessage(Struct, tag="message", tag_field="type", kw_only=True):
    """Text of the model."""

    id: str
    status: ItemStatus = "in_progress"
    role: Literal["assistant"] = "assistant"
    content: list[OutputText | OutputRefusal]


class ReasoningItem(Struct, tag="reasoning", tag_field="type", kw_only=True):
    """Reasoning of the model: as `content`, or as `summary` if the request asks for one."""

    id: str
    status: ItemStatus = "in_progress"
    summary: list[SummaryText]
    content: list[ReasoningText] | UnsetType = UNSET
    encrypted_content: str | UnsetType = UNSET


class FunctionCall(Struct, tag="function_call", tag_field="type", kw_only=True):
    """Function call of the model."""

    id: str
    status: ItemStatus = "in_progress"
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str


class CustomToolCall(Struct, tag="custom_tool_call", tag_field="type", kw_only=True):
    """Call of a custom tool by the model."""

    id: str
    status: ItemStatus = "in_progress"
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str


OutputItem = OutputMessage | ReasoningItem | FunctionCall | CustomToolCall


class InputDetails(Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct):
    reasoning_tokens: int


class ResponseUsage(Struct):
    """Tokens used by a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseFailure(Struct):
    """Reason why the response is missing or incomplete."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class Incomplete(Struct):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseObject(Struct, kw_only=True):
    """A response."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status = "in_progress"
    background: bool = False
    error: ResponseFailure | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, Any]
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int = 0
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    truncation: Literal["auto", "disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    metadata: dict[str, str]


class StreamEvent(Struct, kw_only=True):
    """Event of a stream; the reply numbers them."""

    sequence_number: int = -1


class ResponseEvent(StreamEvent, kw_only=True):
    """State of the whole response."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseObject


class ItemEvent(StreamEvent, kw_only=True):
    """Start or end of an item."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: OutputItem


class OfItem(StreamEvent, kw_only=True):
    item_id: str
    output_index: int


class PartEvent(OfItem, kw_only=True):
    """Start or end of a part of an item's content."""

    type: PartType
    content_index: int = 0
    part: OutputText | OutputRefusal | ReasoningText


class SummaryPartEvent(OfItem, kw_only=True):
    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    summary_index: int = 0
    part: SummaryText


class TextDelta(OfItem, kw_only=True):
    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    content_index: int = 0
    delta: str
    logprobs: list[ChosenToken]


class TextDone(OfItem, kw_only=True):
    type: Literal["response.output_text.done"] = "response.output_text.done"
    content_index: int = 0
    text: str
    logprobs: list[ChosenToken]


class ContentDelta(OfItem, kw_only=True):
    type: Literal["response.refusal.delta", "response.reasoning_text.delta"]
    content_index: int = 0
    delta: str


class RefusalDone(OfItem, kw_only=True):
    type: Literal["response.refusal.done"] = "response.refusal.done"
    content_index: int = 0
    refusal: str


class ReasoningDone(OfItem, kw_only=True):
    type: Literal["response.reasoning_text.done"] = "response.reasoning_text.done"
    content_index: int = 0
    text: str


class SummaryDelta(OfItem, kw_only=True):
    type: Literal["response.reasoning_summary_text.delta"] = "response.reasoning_summary_text.delta"
    summary_index: int = 0
    delta: str


class SummaryDone(OfItem, kw_only=True):
    type: Literal["response.reasoning_summary_text.done"] = "response.reasoning_summary_text.done"
    summary_index: int = 0
    text: str


class ArgumentsDelta(OfItem, kw_only=True):
    type: Literal["response.function_call_arguments.delta", "response.custom_tool_call_input.delta"]
    delta: str


class ArgumentsDone(OfItem, kw_only=True):
    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    name: str
    arguments: str


class InputDone(OfItem, kw_only=True):
    type: Literal["response.custom_tool_call_input.done"] = "response.custom_tool_call_input.done"
    input: str


class ErrorEventDetails(Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEvent(StreamEvent, kw_only=True):
    """Error after a stream has started: flat as in OpenAI's documentation, and nested as its server sends it."""

    type: Literal["error"] = "error"
    code: str | None
    message: str
    param: str | None
    error: ErrorEventDetails


def usage(finished: Finished) -> ResponseUsage | None:
    """Return the usage object; None if the tokens were not counted."""
    if not finished.counted:
        return None
    return ResponseUsage(
        input_tokens=finished.prompt_tokens,
        input_tokens_details=InputDetails(finished.cached_tokens),
        output_tokens=finished.completion_tokens,
        output_tokens_details=OutputDetails(finished.reasoning_tokens),
        total_tokens=finished.prompt_tokens + finished.completion_tokens,
    )


def failure(error: ApiError) -> ResponseFailure:
    """Return an error in the form of a response."""
    if error.status == 429:  # noqa: PLR2004
        return ResponseFailure("rate_limit_exceeded", told(error))
    return ResponseFailure("server_error" if error.is_ours else "invalid_prompt", told(error))
