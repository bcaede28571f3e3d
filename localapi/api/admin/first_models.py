"""`GET /admin/first-models`: a short list of models to start with, and which of them fit this machine."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final

from msgspec import Meta, Struct
from quart import Blueprint, Response

from localapi.api.operation import JSON, Operation, Operations
from localapi.backends.model_path import is_downloaded
from localapi.http.replies import json_reply
from localapi.kinds.first_models import USABLE_SHARE, FirstModel, first_models, suggested
from localapi.runtime.registry import Registry
from localapi.system.memory import available_bytes, room_for_models, total_bytes
from localapi.system.threads import aside


class FirstModelReply(Struct, kw_only=True):
    """One model of the list."""

    id: Annotated[str, Meta(description="Suggested id of its entry.")]
    kind: str
    backend: str
    repository: str
    download_bytes: int
    memory_bytes: int
    licence: str
    good_at: str
    fits: Annotated[bool, Meta(description="True if it fits into the memory for models, with no other model loaded.")]
    suggested: bool
    downloaded: bool
    entries: Annotated[list[str], Meta(description="Ids of the manifest's entries that use it.")]


class FirstModelsReply(Struct, kw_only=True):
    """Models to start with, the smallest first, and the memory available for them."""

    total_bytes: Annotated[int, Meta(description="Total memory of the machine.")]
    available_bytes: Annotated[int, Meta(description="Currently free memory.")]
    usable_bytes: Annotated[
        int, Meta(description="Memory for models: the manifest's budget, or most of the machine's.")
    ]
    models: list[FirstModelReply]


def routes(registry: Registry) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("first_models", __name__)

    @blueprint.get("/admin/first-models")
    async def list_first_models() -> Response:
        used: dict[str, list[str]] = {}
        for entry in registry.entries.values():
            for repository, _ in entry.options.repositories():
                used.setdefault(repository, []).append(entry.id)
        return json_reply(await aside(lambda: _reply(registry.memory.budget, used)))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/admin/first-models"): Operation(
        summary="Models to start with, and which of them fit this machine.", content={JSON: FirstModelsReply}
    )
}


def _reply(budget: int | None, used: dict[str, list[str]]) -> FirstModelsReply:
    """Return the list. Blocks."""
    usable = room_for_models(budget, USABLE_SHARE)
    best = suggested(usable)
    return FirstModelsReply(
        total_bytes=total_bytes(),
        available_bytes=available_bytes(),
        usable_bytes=usable,
        models=[_model(each, usable, best, used.get(each.repository, [])) for each in first_models()],
    )


def _model(model: FirstModel, usable: int, best: FirstModel, entries: list[str]) -> FirstModelReply:
    return FirstModelReply(
        **dataclasses.asdict(model),
        fits=model.fits(usable),
        suggested=model is best,
        downloaded=is_downloaded(model.repository),
        entries=entries,
    )
