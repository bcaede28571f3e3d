"""How things look on the wire: OpenAI's error object, JSON, server-sent events."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from quart import Response

from localapi.errors import ApiError, InvalidKey, MethodNotAllowed, NoRoom, UnsupportedEncoding
from localapi.http import request_context
from localapi.http.encodings import ENCODINGS

_encode = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"
EVENT_STREAM = "text/event-stream; charset=utf-8"


def error_body(error: ApiError) -> dict[str, Any]:
    """OpenAI's error object, always with all four keys."""
    return {
        "error": {"message": _told(error), "type": error.type, "param": error.param, "code": error.reply_code},
    }


def _told(error: ApiError) -> str:
    """The message, without names of models that do not exist for the key that asks."""
    key = request_context.current_key()
    if isinstance(error, NoRoom) and key is not None and not all(map(key.opens, error.beside)):
        return error.unnamed
    return error.message


def json_reply(content: object, *, status: int = 200) -> Response:
    """Any value that msgspec can encode."""
    return Response(_encode(content), status=status, content_type="application/json")


def error_reply(error: ApiError) -> Response:
    """The reply for an error that happened before anything was sent."""
    reply = json_reply(error_body(error), status=error.status)
    if isinstance(error, InvalidKey):
        reply.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        reply.headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, UnsupportedEncoding):
        reply.headers["Accept-Encoding"] = ", ".join(ENCODINGS)
    if error.retryable is not None:
        reply.headers["x-should-retry"] = "true" if error.retryable else "false"
    if error.retry_after_seconds is not None:
        reply.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
    return reply


def streamed_reply(body: AsyncGenerator[bytes, None], content_type: str) -> Response:
    """A reply that is sent as it is made."""
    reply = Response(body, content_type=content_type)
    reply.headers["Cache-Control"] = "no-cache"
    reply.headers["X-Accel-Buffering"] = "no"  # nginx, and what understands its header, would collect it first
    reply.timeout = None
    return reply


def event(content: object, *, name: str | None = None) -> bytes:
    """One server-sent event; OpenAI's have no name."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + _encode(content) + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients skip; it keeps a connection alive and tells whoever looks what is going on."""
    return b": " + " ".join(text.split()).encode() + b"\n\n"
