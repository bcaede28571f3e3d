"""`GET /v1/models` and `GET /v1/models/{id}`: the models that the manifest offers."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import UNSET, Struct
from quart import Blueprint, Response, request

from localapi.api.anthropic import models as anthropic
from localapi.api.anthropic import wire
from localapi.api.openai.wire import ErrorReply
from localapi.api.operation import JSON, MODEL_ID, Operation, Operations, Schema
from localapi.http.replies import json_reply
from localapi.kinds import ModelObject
from localapi.manifest import Entry
from localapi.runtime.peer_instance import PeerInstance
from localapi.runtime.pool import Pool
from localapi.runtime.registry import Registry


def routes(registry: Registry) -> Blueprint:
    """Return both endpoints. An id may contain slashes, raw or percent-encoded; an alias returns its entry."""
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/v1/models")
    async def list_models() -> Response:
        models = [describe(registry, entry) for entry in registry.offered]
        if wire.is_meant():
            return json_reply(anthropic.page_of(models, request.args))
        return json_reply(ModelList(data=models))

    @blueprint.get("/v1/models/<path:name>")
    async def retrieve_model(name: str) -> Response:
        model = describe(registry, registry.resolve(name))
        return json_reply(anthropic.info_of(model) if wire.is_meant() else model)

    return blueprint


class ModelList(Struct, kw_only=True):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


ANTHROPIC_VERSION: Final[Schema] = {
    "name": wire.VERSION_HEADER,
    "in": "header",
    "schema": {"type": "string"},
    "description": "Sent only by clients of Anthropic's API; its value is ignored.",
    "example": "2023-06-01",
}
PAGE: Final[tuple[Schema, ...]] = (
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
    {"name": "after_id", "in": "query", "schema": {"type": "string"}},
    {"name": "before_id", "in": "query", "schema": {"type": "string"}},
)
"""Query for a part of the list, from Anthropic's clients. Others get the whole list."""

OPERATIONS: Final[Operations] = {
    ("GET", "/v1/models"): Operation(
        summary="List all models. Clients of Anthropic's API get them in its form.",
        content={JSON: ModelList | anthropic.ModelPage},
        parameters=(ANTHROPIC_VERSION, *PAGE),
        errors=frozenset({400}),
        error=ErrorReply | wire.ErrorMessage,
    ),
    ("GET", "/v1/models/{id}"): Operation(
        summary="Describe one model.",
        content={JSON: ModelObject | anthropic.ModelInfo},
        errors=frozenset({404}),
        error=ErrorReply | wire.ErrorMessage,
        parameters=(MODEL_ID, ANTHROPIC_VERSION),
    ),
}


def describe(registry: Registry, entry: Entry) -> ModelObject:
    """Return the model object of an entry, with what its kind adds."""
    instance = registry.instance(entry.id)
    download_bytes = registry.downloads.bytes_of(entry.options)
    variant_of = UNSET if entry.variant_of is None else entry.variant_of
    model = entry.kind.model(
        id=entry.id,
        created=int(registry.started_at),
        owned_by="localapi",
        kind=entry.kind.name,
        backend=entry.options.backend_name,
        state=registry.downloads.state_of(entry.options, instance),
        download_bytes=UNSET if download_bytes is None else download_bytes,
        aliases=list(entry.options.aliases),
        description=entry.options.description,
        input=entry.kind.input,
        output=entry.kind.output,
        variant_of=variant_of,
    )
    if isinstance(instance, Pool):
        members = [member.entry for member in instance.members]
        model.members = [each.id for each in members if registry.may_use(each)]
        model.describe_pool([describe(registry, each) for each in members])
    elif isinstance(instance, PeerInstance):
        model.peer = instance.peer
        model.describe_pool([instance.object] if instance.object is not None else [])
    else:
        model.describe(entry.options, instance.loaded)
    return model
