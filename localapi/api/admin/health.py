"""`GET /health`: the server is alive. `GET /health/ready`: it can answer."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType
from quart import Blueprint, Response

from localapi.api.operation import JSON, Operation, Operations
from localapi.http.replies import json_reply
from localapi.runtime.registry import Registry


class Health(Struct, kw_only=True):
    """Health of the server, with the models that it waits for or that failed to load."""

    status: Literal["ok", "ready", "loading", "failed", "shutting down"]
    models: list[str] | UnsetType = UNSET
    errors: dict[str, str | None] | UnsetType = UNSET


def routes(registry: Registry, draining: Callable[[], bool]) -> Blueprint:
    """Return both endpoints; readiness is a 503 with the reason if the server is not ready."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    async def live() -> Response:
        return json_reply(Health(status="ok"))

    @blueprint.get("/health/ready")
    async def ready() -> Response:
        if draining():
            return json_reply(Health(status="shutting down"), status=503)
        wanted = [registry.instance(e.id) for e in registry.entries.values() if e.options.wants_loading]
        known = {entry.id for entry in registry.offered}
        failed = {each.name: each.last_error for each in wanted if each.state == "failed"}
        failed |= {each.name: each.vitals.reason for each in wanted if each.vitals and not each.vitals.healthy}
        if failed:
            errors = failed if known >= registry.entries.keys() else {}  # an error may name other models
            return json_reply(Health(status="failed", models=_in(known, failed), errors=errors), status=503)
        if loading := [each.name for each in wanted if each.state == "loading" or each.will_reload]:
            return json_reply(Health(status="loading", models=_in(known, loading)), status=503)
        return json_reply(Health(status="ready"))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/health"): Operation(summary="Check that the server is running.", content={JSON: Health}),
    ("GET", "/health/ready"): Operation(
        summary="Check that the server can answer.", content={JSON: Health}, others={503: Health}
    ),
}


def _in(known: Container[str], names: Iterable[str]) -> list[str]:
    """Return the names that the client may know."""
    return [name for name in names if name in known]
