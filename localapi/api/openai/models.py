"""`GET /v1/models` and `GET /v1/models/{id}`: what the manifest offers."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct
from quart import Blueprint, Response

from localapi.api.operation import JSON, MODEL_ID, Operation, Operations
from localapi.http.replies import json_reply
from localapi.kinds import ModelObject
from localapi.manifest import Entry
from localapi.runtime.pool import Pool
from localapi.runtime.registry import Registry


def routes(registry: Registry) -> Blueprint:
    """Both endpoints. An id may hold slashes, raw or percent-encoded; an alias answers with its entry."""
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/v1/models")
    async def list_models() -> Response:
        return json_reply(ModelList(data=[describe(registry, entry) for entry in registry.offered]))

    @blueprint.get("/v1/models/<path:name>")
    async def retrieve_model(name: str) -> Response:
        return json_reply(describe(registry, registry.resolve(name)))

    return blueprint


class ModelList(Struct, kw_only=True):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


OPERATIONS: Final[Operations] = {
    ("GET", "/v1/models"): Operation(summary="All models.", content={JSON: ModelList}),
    ("GET", "/v1/models/{id}"): Operation(
        summary="One model.", content={JSON: ModelObject}, errors=frozenset({404}), parameters=(MODEL_ID,)
    ),
}


def describe(registry: Registry, entry: Entry) -> ModelObject:
    """Return the model object of an entry, with what its kind adds."""
    instance = registry.instance(entry.id)
    model = entry.kind.model(
        id=entry.id,
        created=int(registry.started_at),
        owned_by="localapi",
        kind=entry.kind.name,
        backend=entry.options.backend_name,
        state=instance.state,
        aliases=list(entry.options.aliases),
        description=entry.options.description,
    )
    if isinstance(instance, Pool):
        members = [place.entry for place in instance.places]
        model.members = [each.id for each in members if registry.may_use(each)]
        model.describe_pool([describe(registry, each) for each in members])
    else:
        model.describe(entry.options, instance.engine.loaded if instance.engine else None)
    return model
