"""`GET /v1/models` and `GET /v1/models/{id}`: what the manifest offers."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response

from localapi.backends.engine import Engine
from localapi.backends.speech import SpeechOptions
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


def describe(registry: Registry, entry: Entry) -> dict[str, Any]:
    """OpenAI's model object, and ours: kind, backend, state, aliases, and what only one kind has."""
    instance = registry.instance(entry.id)
    engine = instance.engine
    content: dict[str, Any] = {
        "id": entry.id,
        "object": "model",
        "created": int(registry.started_at),
        "owned_by": "localapi",
        "kind": entry.kind,
        "backend": entry.options.backend_name,
        "state": instance.state,
        "aliases": list(entry.serving.aliases),
        "description": entry.serving.description,
    }
    if entry.serving.speech is not None:
        content["voices"] = sorted(entry.serving.speech.voices)
        content["takes"] = taken_fields(entry, engine)
    else:
        options = entry.identity.options
        content["context_length"] = engine.loaded.context_length if engine else options.get("context_length")
        content["batched"] = engine.loaded.batched if engine else not (options.get("draft") or options.get("kv_bits"))
    return content


def taken_fields(entry: Entry, engine: Engine | None) -> list[str]:
    """What a request for speech may say beside voice, speed and format: what the backend takes, and of that what the
    model does, which may be known only when it is loaded.
    """
    assert isinstance(entry.options, SpeechOptions)  # noqa: S101  # a speech entry
    of_model = engine.loaded.takes if engine else None
    taken = entry.options.takes if of_model is None else entry.options.takes.intersection(of_model)
    return sorted({*taken, "instructions"} if "instruct_text" in taken else taken)
