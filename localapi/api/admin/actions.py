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
    """Return all of them. A model is named by its id or an alias."""
    blueprint = Blueprint("admin", __name__)

    @blueprint.post("/admin/reload")
    async def reload() -> Response:
        """Read and apply the manifest now."""
        attempt = await reloader.reload()
        return json_reply(describe_attempt(attempt), status=200 if attempt.ok else 422)

    @blueprint.post("/admin/models/<path:name>/load")
    async def load(name: str) -> Response:
        """Load a model if it is not loaded; reply once it is. Raise LoadFailed."""
        return _reply(await by_hand.load(registry, name))

    @blueprint.post("/admin/models/<path:name>/unload")
    async def unload(name: str) -> Response:
        """End a model's worker once its requests have ended. Raise ModelInUse."""
        return _reply(await by_hand.unload(registry, name))

    @blueprint.post("/admin/models/<path:name>/pin")
    async def pin(name: str) -> Response:
        """Load a model and keep it loaded until it is unpinned or the server stops. Raise LoadFailed."""
        return _reply(await by_hand.pin(registry, name))

    @blueprint.post("/admin/models/<path:name>/unpin")
    async def unpin(name: str) -> Response:
        """Undo a pin, so that the manifest decides again."""
        return _reply(by_hand.unpin(registry, name))

    return blueprint


def _of_model(summary: str, *errors: int) -> Operation:
    return Operation(summary=summary, content={JSON: InstanceReply}, errors=frozenset(errors), parameters=(MODEL_ID,))


OPERATIONS: Final[Operations] = {
    ("POST", "/admin/reload"): Operation(
        summary="Reload the manifest now.",
        content={JSON: AttemptReply},
        errors=frozenset({503}),
        others={422: AttemptReply},
    ),
    ("POST", "/admin/models/{id}/load"): _of_model("Load a model.", 404, 429, 503),
    ("POST", "/admin/models/{id}/unload"): _of_model("Unload a model.", 404, 409, 503),
    ("POST", "/admin/models/{id}/pin"): _of_model("Load a model and keep it loaded.", 404, 429, 503),
    ("POST", "/admin/models/{id}/unpin"): _of_model("Undo a pin.", 400, 404, 503),
}


def _reply(instance: Instance) -> Response:
    return json_reply(describe_instance(instance))
