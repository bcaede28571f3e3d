"""Reply of another server, passed on to the client as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from quart import Response

from localapi.errors import ModelUnavailable
from localapi.http import request_context
from localapi.http.read_ahead import Ahead
from localapi.http.replies import streamed_reply
from localapi.worker.protocol import Event, ForwardedData, ForwardedHead


async def forwarded_reply(items: Ahead[Event], entry_id: str) -> Response:
    """Return the reply with the other server's content type. Raise ApiError before anything is sent."""
    request_context.current().held.push_async_callback(items.close)
    head = await items.get()
    if not isinstance(head, ForwardedHead):
        raise ModelUnavailable("The upstream sent no reply. Send the request again.")
    await items.begun(None)
    return streamed_reply(_data(items, entry_id), head.content_type)


async def _data(items: Ahead[Event], entry_id: str) -> AsyncGenerator[bytes, None]:
    """Yield the bytes. Raise BrokenOff if they end prematurely, because the status is already sent."""
    with request_context.broken_off(entry_id):
        while (item := await items.get()) is not None:
            if isinstance(item, ForwardedData):
                yield item.data
