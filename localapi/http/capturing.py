"""ASGI middleware that captures requests to models and their replies, if the manifest asks for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from localapi.http import request_context
from localapi.observability.captures import Body, Captures, Exchange

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGIFramework,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        HTTPScope,
        Scope,
    )

_OF_MODELS: Final = ("/v1/", "/v2/", "/api/", "/rerank", "/embed")


class CaptureMiddleware:
    """Middleware inside the request scope, which knows the request's id, model and key."""

    def __init__(self, app: ASGIFramework, captures: Captures) -> None:
        self._app = app
        self._captures = captures

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http" and self._captures.enabled and is_of_models(scope):
            await self._captured(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _captured(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        context = request_context.current()
        exchange = Exchange(context.id, scope["method"], scope["path"])
        exchange.request = Body(_content_type(scope["headers"]))
        self._captures.begin(exchange)

        async def heard() -> ASGIReceiveEvent:
            message = await receive()
            if message["type"] == "http.request":
                self._captures.add(exchange, exchange.request, message["body"])
            return message

        async def said(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.first_seconds = time.monotonic() - exchange.began
                exchange.reply = Body(_content_type(message["headers"]))
            elif message["type"] == "http.response.body":
                self._captures.add(exchange, exchange.reply, message["body"])
            await send(message)

        try:
            await self._app(scope, heard, said)
        finally:
            exchange.seconds = time.monotonic() - exchange.began
            exchange.model = context.model
            exchange.key = context.key.name if context.key is not None else None


def is_of_models(scope: HTTPScope) -> bool:
    """Return True if a request is for a model."""
    return scope["method"] == "POST" and scope["path"].startswith(_OF_MODELS)


def _content_type(headers: object) -> str:
    """Return the content type of a body; empty if the body is compressed, and so cannot be read."""
    found = {bytes(name).lower(): bytes(value) for name, value in headers}  # type: ignore[attr-defined]
    if found.get(b"content-encoding", b"identity") != b"identity":
        return ""
    return found.get(b"content-type", b"").decode("latin-1")
