"""The shapes of JSON replies, for `GET /openapi.json`. Tests hold what the server sends against them.

Shapes that people read more than programs may have more keys than these name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class Shape(Struct, kw_only=True, forbid_unknown_fields=True):
    """An object with these keys and no others."""


class OpenShape(Struct, kw_only=True):
    """An object with these keys, and maybe more."""


class ErrorDetails(Shape):
    """What was wrong, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Shape):
    """OpenAI's error object."""

    error: ErrorDetails


class ModelObject(OpenShape):
    """OpenAI's model object, and ours."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: str
    backend: str
    state: str
    aliases: list[str]
    description: str | None
    voices: Annotated[list[str], Meta(description="Of a speech model: the names that the manifest maps.")] = []
    takes: Annotated[
        list[str],
        Meta(description="Of a speech model: the fields that it takes beside voice, speed, format and timestamps."),
    ] = []


class ModelList(Shape):
    """All models."""

    object: Literal["list"]
    data: list[ModelObject]


class SpeechModelList(Shape):
    """The speech models, under both names that clients look for."""

    object: Literal["list"]
    models: list[ModelObject]
    data: list[ModelObject]


class VoiceObject(Shape):
    """A voice of a speech model."""

    id: str
    name: str
    language: str
    model: str
    voice: str | None
    source: Literal["manifest", "engine"]


class VoiceList(Shape):
    """Voices."""

    voices: list[VoiceObject]


class PromptDetails(Shape):
    cached_tokens: int


class AnswerDetails(Shape):
    reasoning_tokens: int


class Usage(Shape):
    """What a request took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: AnswerDetails


class CalledFunctionReply(Shape):
    name: str
    arguments: str


class ToolCallReply(Shape):
    id: str
    type: Literal["function"]
    function: CalledFunctionReply


class MessageReply(Shape):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str = ""
    tool_calls: list[ToolCallReply] = []


class ChatChoiceReply(Shape):
    index: int
    message: MessageReply
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatReply(Shape):
    """The answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoiceReply]
    usage: Usage


class CompletionChoice(Shape):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class CompletionReply(Shape):
    """The continuations of prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class TokensReply(Shape):
    """The tokens of a text."""

    tokens: list[int]
    count: int


class TextReply(Shape):
    """The text of tokens."""

    text: str


class TimedSegment(Shape):
    """When a part of the text is said, in seconds."""

    text: str
    start: float
    end: float
    words: list[dict[str, Any]] = []


class SpeechUsage(Shape):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class TimedSpeech(Shape):
    """A file of sound as base64, and when each part is said."""

    audio: str
    format: str
    content_type: str
    duration_seconds: float
    timestamps: list[TimedSegment]
    usage: SpeechUsage
    notes: list[str]


class Health(OpenShape):
    """How the server is."""

    status: str


class Excerpt(Shape):
    """Lines of the file as it was read; what may be secret is hidden."""

    first_line: int
    lines: list[str]


class ProblemReply(Shape):
    """One thing wrong in the manifest."""

    source: str
    line: int | None
    column: int | None
    key: str
    message: str
    excerpt: Excerpt | None


class Changes(Shape):
    """What an edit meant, as ids."""

    added: list[str]
    changed: list[str]
    updated: list[str]
    removed: list[str]
    server: bool


class AttemptReply(Shape):
    """A reading of the manifest: what it did, or why it did nothing."""

    at: float
    ok: bool
    revision: int
    changes: Changes
    not_loaded: dict[str, str]
    problems: list[ProblemReply]


class SwapReply(OpenShape):
    """What is to replace a model: it loads, or it did not load and is tried again; the old one answers on."""

    state: Literal["loading", "failed"]
    backend: str
    path: str | None
    error: str | None
    failures: int
    next_try_at: float | None


class StatusModel(OpenShape):
    """One model, as it is now."""

    id: str
    state: str
    leases: Annotated[int, Meta(ge=0)]
    loads: int
    worker_deaths: int
    last_error: str | None
    pinned: bool
    tokens_per_second: Annotated[float, Meta(ge=0)] | None
    healthy: bool | None
    unhealthy_reason: str | None


class InstanceReply(OpenShape):
    """A model after it was loaded or unloaded; `/status` has the same of all."""

    id: str
    state: str
    pinned: bool


class StatusReply(OpenShape):
    """Full state of the server."""

    version: str
    started_at: float
    now: float
    revision: int
    last_attempt: AttemptReply | None
    last_change: AttemptReply | None
    reading_since: float | None
    warnings: list[str]
    models: list[StatusModel]
    retiring: list[StatusModel]
