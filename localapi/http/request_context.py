"""State of one HTTP request: its id, its key, and what must be released when it ends.

Quart runs a handler and then the body of its reply. If a client disconnected between the two, a lease would remain. So
everything a request holds is released at the end of the ASGI call, which ends exactly once in any case.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from localapi.errors import ApiError
from localapi.http.host_check import plain_host
from localapi.manifest import Key
from localapi.observability import log
from localapi.observability.counters import NO_MODEL, Counters

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

    from localapi.observability.spans import Trace

logger = logging.getLogger(__name__)

CLIENT_LEFT: Final = 499
"""Status that is counted for a request whose client left before it had one."""


class BrokenOff(Exception):
    """The body cannot be completed; the reason was logged. The connection is closed.

    A truncated file must not look complete to the client.
    """


@contextlib.contextmanager
def broken_off(entry_id: str) -> Iterator[None]:
    """Log an error after the status was sent, and raise BrokenOff instead."""
    try:
        yield
    except ApiError as error:
        logger.warning("%s: %s: broken off: %s", current().id, entry_id, error.logged)
        raise BrokenOff from error
    except Exception as error:
        logger.exception("%s: %s: broken off", current().id, entry_id)
        raise BrokenOff from error


@dataclass
class RequestScope:
    """Request that is being answered."""

    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    held: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Resources that are closed when the request has ended: answered, failed, or abandoned by its client."""
    counters: Counters = field(default_factory=Counters)
    """Counters of the server."""
    endpoint: str = "other"
    """Path of the route."""
    model: str = NO_MODEL
    """Id of the entry that answers; empty if there is none."""
    key: Key | None = None
    """API key of the request; None if none was needed."""
    status: int = CLIENT_LEFT
    """Status of the reply, once it has begun."""
    error: str | None = None
    """Code of the error with which it ended."""
    trace: Trace | None = None
    """Trace, if the manifest asks for traces."""

    def use(self, model: str) -> None:
        """Record the id of the entry that answers, also for the log."""
        self.model = log.about.get()["model"] = model

    def take(self, key: Key) -> None:
        """Record the key, also for the log."""
        self.key = key
        self.counters = self.counters.of_key(key.name)
        log.about.get()["key"] = key.name


_current: ContextVar[RequestScope] = ContextVar("request_scope")


def begin(counters: Counters) -> RequestScope:
    """Create the scope of a request, and make it current in this context."""
    request = RequestScope(counters=counters)
    _current.set(request)
    log.about.set({"request_id": request.id})
    return request


def current() -> RequestScope:
    """Return the scope of the current request."""
    return _current.get()


def current_key() -> Key | None:
    """Return the key of the current request, or None without a request."""
    request = _current.get(None)
    return request.key if request else None


class ScopeMiddleware:
    """ASGI middleware that opens a scope for each HTTP request, and calls `ended` at its end.

    It sends the request's id as `x-request-id`, and counts the request when it ends.
    """

    def __init__(self, app: ASGIFramework, counters: Counters, ended: Callable[[], None]) -> None:
        self._app = app
        self._counters = counters
        self._ended = ended

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = plain_host(scope["headers"])
        scope["path"] = scope["path"].rstrip("/") or "/"  # some clients end every path with a slash
        request = begin(self._counters)

        def send_with_id(message: ASGISendEvent) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                identity = request.id.encode()
                # the header's names at OpenAI and at Anthropic
                message["headers"] = [*message["headers"], (b"x-request-id", identity), (b"request-id", identity)]
            return send(message)

        try:
            async with request.held:
                with contextlib.suppress(BrokenOff):
                    await self._app(scope, receive, send_with_id)
        finally:
            request.counters.ended(request.model, request.endpoint, request.status)
            self._ended()
