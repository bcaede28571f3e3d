"""`/admin/captures`: the latest requests to models and their replies, if the manifest asks to keep them."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct
from quart import Blueprint, Response

from localapi.api.operation import JSON, Operation, Operations
from localapi.errors import NotFound
from localapi.http.edit_rights import EditRights
from localapi.http.replies import json_reply
from localapi.observability.captures import Body, Captures, Exchange


class CaptureReply(Struct, kw_only=True):
    """One request and its reply."""

    id: Annotated[str, Meta(description="Its x-request-id.")]
    at: float
    method: str
    path: str
    model: str
    key: Annotated[str | None, Meta(description="Name of its API key.")]
    status: Annotated[int | None, Meta(description="Null until the reply begins.")]
    first_seconds: Annotated[float | None, Meta(description="Time until the reply began.")]
    seconds: Annotated[float | None, Meta(description="Time until the reply ended.")]
    request_bytes: int
    reply_bytes: int


class CapturesReply(Struct, kw_only=True):
    """The latest requests, the newest first."""

    enabled: bool
    bytes: int
    captures: list[CaptureReply]


class BodyReply(Struct, kw_only=True):
    """A body, if it is text."""

    content_type: str
    bytes: int
    text: Annotated[str | None, Meta(description="Null if it is not text, or if contents are not kept.")]
    cut: Annotated[bool, Meta(description="True if a part is missing.")]


class WholeCaptureReply(Struct, kw_only=True):
    """One request and its reply, with their bodies."""

    capture: CaptureReply
    request: BodyReply
    reply: BodyReply


def routes(captures: Captures, rights: EditRights) -> Blueprint:
    """Return all of them."""
    blueprint = Blueprint("captures", __name__)

    @blueprint.get("/admin/captures")
    async def latest() -> Response:
        rights.check_private()
        found = [_described(each) for each in captures.latest()]
        return json_reply(CapturesReply(enabled=captures.enabled, bytes=captures.bytes, captures=found))

    @blueprint.get("/admin/captures/<capture_id>")
    async def one(capture_id: str) -> Response:
        rights.check_private()
        found = captures.get(capture_id)
        if found is None:
            raise NotFound(f"There is no capture {capture_id[:100]!r}; it may have been replaced by newer ones.")
        return json_reply(
            WholeCaptureReply(capture=_described(found), request=_body(found.request), reply=_body(found.reply))
        )

    @blueprint.post("/admin/captures/clear")
    async def clear() -> Response:
        rights.check_private()
        captures.clear()
        return json_reply(CapturesReply(enabled=captures.enabled, bytes=0, captures=[]))

    return blueprint


_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Id from the list.",
}
OPERATIONS: Final[Operations] = {
    ("GET", "/admin/captures"): Operation(summary="The latest requests to models.", content={JSON: CapturesReply}),
    ("GET", "/admin/captures/{id}"): Operation(
        summary="One request and its reply.",
        content={JSON: WholeCaptureReply},
        errors=frozenset({404}),
        parameters=(_ID,),
    ),
    ("POST", "/admin/captures/clear"): Operation(summary="Delete all of them.", content={JSON: CapturesReply}),
}


def _described(exchange: Exchange) -> CaptureReply:
    return CaptureReply(
        id=exchange.id,
        at=exchange.at,
        method=exchange.method,
        path=exchange.path,
        model=exchange.model,
        key=exchange.key,
        status=exchange.status,
        first_seconds=exchange.first_seconds,
        seconds=exchange.seconds,
        request_bytes=exchange.request.size,
        reply_bytes=exchange.reply.size,
    )


def _body(body: Body) -> BodyReply:
    text = body.data.decode("utf-8", errors="replace") if body.data else None
    return BodyReply(content_type=body.content_type, bytes=body.size, text=text, cut=body.is_cut)
