"""`GET /v1/models` and `GET /v1/models/{id}`: what the manifest offers."""

from __future__ import annotations

from typing import Any, Final

from quart import Blueprint, Response

from localapi.api import reply_shapes as shapes
from localapi.api.operation import JSON, MODEL_ID, Operation, Operations
from localapi.http.replies import json_reply
from localapi.manifest import Entry
from localapi.runtime.registry import Registry


def routes(registry: Registry) -> Blueprint:
    """Both endpoints. An id may hold slashes, raw or percent-encoded; an alias answers with its entry."""
    blueprint = Blueprint("models", __name__)

    @blueprint.get("/v1/models")
    async def list_models() -> Response:
        return json_reply({"object": "list", "data": [describe(registry, e) for e in registry.offered]})

    @blueprint.get("/v1/models/<path:name>")
    async def retrieve_model(name: str) -> Response:
        return json_reply(describe(registry, registry.resolve(name)))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/v1/models"): Operation(summary="All models.", content={JSON: shapes.ModelList}),
    ("GET", "/v1/models/{id}"): Operation(
        summary="One model.", content={JSON: shapes.ModelObject}, errors=frozenset({404}), parameters=(MODEL_ID,)
    ),
}


def describe(registry: Registry, entry: Entry) -> dict[str, Any]:
    """OpenAI's model object, and ours: kind, backend, state, aliases, and what only one kind has."""
    instance = registry.instance(entry.id)
    engine = instance.engine
    content: dict[str, Any] = {
        "id": entry.id,
        "object": "model",
        "created": int(registry.started_at),
        "owned_by": "localapi",
        "kind": entry.kind.name,
        "backend": entry.options.backend_name,
        "state": instance.state,
        "aliases": list(entry.options.aliases),
        "description": entry.options.description,
    }
    return {**content, **entry.kind.describe(entry.options, engine.loaded if engine else None)}
