"""Bodies of any size: a client that sends faster than its body is read has to wait, and memory does not grow.

Quart accepts what arrives at once, whether or not it is read. The server holds messages back only if Quart does not
accept them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from quart.asgi import ASGIHTTPConnection
from quart.wrappers.request import Body

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable
    from quart import Request

MOST_WAITING_BYTES: Final = 1024 * 1024
"""Maximum of unread bytes that may have arrived, for a body that is read piece by piece."""


class PacedBody(Body):
    """Body that can be read piece by piece. Its reader sets `paced`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.paced = False
        self._taken = asyncio.Event()

    async def __anext__(self) -> bytes:
        data = await super().__anext__()
        self._taken.set()
        return data

    async def room(self) -> None:
        """Wait until more data may arrive."""
        while self.paced and len(self._data) >= MOST_WAITING_BYTES:
            self._taken.clear()
            await self._taken.wait()

    def drop_rest(self) -> None:
        """Discard what still arrives: the reply is sent after the whole body has arrived."""
        self.paced = False
        self._data.clear()
        self._taken.set()


class PacedConnection(ASGIHTTPConnection):
    """Quart's side of one request."""

    async def handle_messages(self, request: Request, receive: ASGIReceiveCallable) -> None:
        """Pass on what arrives, until the client has disconnected."""
        body = request.body
        while True:
            message = await receive()
            if message["type"] == "http.request":
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    body.set_complete()
                elif isinstance(body, PacedBody):
                    await body.room()
            elif message["type"] == "http.disconnect":
                return
