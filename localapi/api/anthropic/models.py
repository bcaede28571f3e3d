"""`GET /v1/models` and `GET /v1/models/{id}` for Anthropic's clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from localapi.http.body import parse
from localapi.kinds import ModelObject
from localapi.kinds.chat import ChatModel


class Supported(Struct):
    supported: bool


class EffortSupport(Struct, kw_only=True):
    """Levels of effort that the model accepts."""

    supported: bool
    low: Supported
    medium: Supported
    high: Supported
    xhigh: Supported
    max: Supported


class ThinkingTypesSupport(Struct, kw_only=True):
    adaptive: Supported
    between_tools: Supported
    disabled: Supported
    enabled: Supported


class ThinkingSupport(Struct, kw_only=True):
    supported: bool
    types: ThinkingTypesSupport


class ServerToolsSupport(Struct, kw_only=True):
    supported: bool = False
    code_execution: Supported
    web_search: Supported


class ModelCapabilities(Struct, kw_only=True):
    """Capabilities of a model, in Anthropic's terms."""

    batch: Supported
    citations: Supported
    code_execution: Supported
    context_management: Supported
    effort: EffortSupport
    image_input: Supported
    pdf_input: Supported
    server_tools: ServerToolsSupport
    structured_outputs: Supported
    thinking: ThinkingSupport


class ModelInfo(Struct, kw_only=True):
    """Model, as Anthropic describes it."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None
    max_tokens: int | None
    capabilities: ModelCapabilities


class ModelPage(Struct, kw_only=True):
    """Part of the list of models."""

    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


class PageQuery(BaseModel):
    """Part of the list to return."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    after_id: str | None = None
    before_id: str | None = None


def page_of(models: Sequence[ModelObject], query: Mapping[str, str]) -> ModelPage:
    """Return the requested part of the list. Raise InvalidRequest."""
    asked = parse(PageQuery, dict(query))
    chat = [info_of(model) for model in models if isinstance(model, ChatModel)]
    ids = [model.id for model in chat]
    if asked.after_id in ids:
        chat = chat[ids.index(asked.after_id) + 1 :]
    if asked.before_id in ids:
        before = chat[: ids.index(asked.before_id)]
        shown = before[-asked.limit :]
    else:
        before = chat
        shown = chat[: asked.limit]
    return ModelPage(
        data=shown,
        has_more=len(before) > len(shown),
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
    )


def info_of(model: ModelObject) -> ModelInfo:
    """Return a model as Anthropic describes it."""
    context = model.context_length if isinstance(model, ChatModel) else None
    return ModelInfo(
        id=model.id,
        display_name=model.description or model.id,
        created_at=datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=context,
        max_tokens=context,
        capabilities=_capabilities(model),
    )


def _capabilities(model: ModelObject) -> ModelCapabilities:
    yes, no = Supported(True), Supported(False)
    can = model.capabilities if isinstance(model, ChatModel) else None
    thinks = Supported(bool(can and can.thinking))
    levels = Supported(bool(can and can.thinking_levels))
    return ModelCapabilities(
        batch=no,
        citations=no,
        code_execution=no,
        context_management=no,
        effort=EffortSupport(
            supported=levels.supported, low=levels, medium=levels, high=levels, xhigh=levels, max=levels
        ),
        image_input=Supported(bool(can and can.vision)),
        pdf_input=no,
        server_tools=ServerToolsSupport(code_execution=no, web_search=no),
        structured_outputs=Supported(bool(can and can.json_schema)),
        thinking=ThinkingSupport(
            supported=thinks.supported,
            # A missing capability is no reason for clients to refuse a request: see docs/anthropic.md.
            types=ThinkingTypesSupport(adaptive=yes, between_tools=yes, disabled=yes, enabled=yes),
        ),
    )
