"""`GET /admin/history`: the usage of models and API keys by hour and day, kept across restarts."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct
from quart import Blueprint, Response

from localapi.api.operation import JSON, Operation, Operations
from localapi.http.replies import json_reply
from localapi.observability.usage_history import Period
from localapi.observability.usage_keeper import UsageKeeper

_AMOUNTS = Meta(
    description="Amounts by name and count: requests, the counters of /metrics, memory_bytes (maximum), and answers "
    "and token_seconds, from which tokens per second can be computed."
)


class PeriodReply(Struct, kw_only=True):
    """An hour or a day."""

    start: Annotated[int, Meta(description="Unix time.")]
    memory_bytes: Annotated[float, Meta(description="Maximum memory of all models together.")]
    models: Annotated[dict[str, dict[str, float]], _AMOUNTS]
    keys: Annotated[dict[str, dict[str, float]], _AMOUNTS]


class HistoryReply(Struct, kw_only=True):
    """The last days, the oldest first. Periods without activity are omitted."""

    enabled: Annotated[bool, Meta(description="False if the manifest has `history: false`.")]
    file: Annotated[str | None, Meta(description="Where it is stored; null if it cannot be stored.")]
    hours: Annotated[list[PeriodReply], Meta(description="Seven days.")]
    days: Annotated[list[PeriodReply], Meta(description="Ninety days, each from midnight in the server's time zone.")]


def routes(usage: UsageKeeper) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("history", __name__)

    @blueprint.get("/admin/history")
    async def history() -> Response:
        found = usage.history()
        return json_reply(
            HistoryReply(
                enabled=usage.enabled,
                file=str(usage.file) if usage.file is not None else None,
                hours=[_described(each) for each in found.hours],
                days=[_described(each) for each in found.days],
            )
        )

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/admin/history"): Operation(
        summary="Usage of models and keys by hour and day.", content={JSON: HistoryReply}
    )
}


def _described(period: Period) -> PeriodReply:
    return PeriodReply(start=period.start, memory_bytes=period.memory_bytes, models=period.models, keys=period.keys)
