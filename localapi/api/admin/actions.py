"""`POST /admin/...`: actions of operators."""

from __future__ import annotations

from typing import Final

from quart import Blueprint, Response

from localapi.api.admin.attempt_status import AttemptReply, describe_attempt
from localapi.api.admin.model_status import InstanceReply, describe_instance
from localapi.api.operation import JSON, MODEL_ID, Operation, Operations
from localapi.http.replies import json_reply
from localapi.reload.reloader import Reloader
from localapi.runtime import by_hand
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry


def routes(registry: Registry, reloader: Reloader) -> Blueprint:
    """All of them. A model is named by its id or an alias."""
    blueprint = Blueprint("admin", __name__)

    @blueprint.post("/admin/reload")
    async def reload() -> Response:
        """Follow the manifest as it is now."""
        attempt = await reloader.reload()
        return json_reply(describe_attempt(attempt), status=200 if attempt.ok else 422)

    @blueprint.post("/admin/models/<path:name>/load")
    async def load(name: str) -> Response:
        """Load a model if it is not loaded; reply when it is. Raise LoadFailed."""
        return _reply(await by_hand.load(registry, name))

    @blueprint.post("/admin/models/<path:name>/unload")
    async def unload(name: str) -> Response:
        """End a model's worker when its requests have ended. Raise ModelInUse."""
        return _reply(await by_hand.unload(registry, name))

    @blueprint.post("/admin/models/<path:name>/pin")
    async def pin(name: str) -> Response:
        """Load a model and keep it loaded until it is unpinned or the server ends. Raise LoadFailed."""
        return _reply(await by_hand.pin(registry, name))

    @blueprint.post("/admin/models/<path:name>/unpin")
    async def unpin(name: str) -> Response:
        """Treat a model as the manifest says again."""
        return _reply(by_hand.unpin(registry, name))

    return blueprint


def _of_model(summary: str, *errors: int) -> Operation:
    return Operation(summary=summary, content={JSON: InstanceReply}, errors=frozenset(errors), parameters=(MODEL_ID,))


OPERATIONS: Final[Operations] = {
    ("POST", "/admin/reload"): Operation(
        summary="Reads the manifest now.",
        content={JSON: AttemptReply},
        errors=frozenset({503}),
        others={422: AttemptReply},
    ),
    ("POST", "/admin/models/{id}/load"): _of_model("Loads a model.", 404, 429, 503),
    ("POST", "/admin/models/{id}/unload"): _of_model("Ends a model's worker.", 404, 409, 503),
    ("POST", "/admin/models/{id}/pin"): _of_model("Loads a model and keeps it loaded.", 404, 429, 503),
    ("POST", "/admin/models/{id}/unpin"): _of_model("Treats a model as the manifest says again.", 400, 404, 503),
}


def _reply(instance: Instance) -> Response:
    return json_reply(describe_instance(instance))
