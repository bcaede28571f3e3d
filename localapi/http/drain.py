"""Reads the rest of a body that is refused for its size, so that its sender gets the refusal.

A client that is still sending when the connection closes sees a broken pipe and never reads the reply.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from localapi.errors import RequestTooLarge

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGIFramework,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        Scope,
    )

DRAIN_SECONDS: Final = 10
DRAIN_BYTES: Final = 128 * 1024 * 1024


class DrainMiddleware:
    """ASGI: holds a 413 back until the body has arrived, within limits of time and size."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        arrived = asyncio.Event()
        received = 0

        async def counted() -> ASGIReceiveEvent:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message["body"])
            if message["type"] != "http.request" or not message["more_body"] or received > DRAIN_BYTES:
                arrived.set()
            return message

        async def send_when_arrived(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start" and message["status"] == RequestTooLarge.status:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), DRAIN_SECONDS)
            await send(message)

        await self._app(scope, counted, send_when_arrived)
