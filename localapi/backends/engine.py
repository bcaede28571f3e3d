"""The seam between the server and whatever answers a request.

An engine is one loaded model. The echo engine answers inside the server; every other engine is the server's end of a
worker. Both speak the structs of `worker.protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from localapi.worker.protocol import Event, Loaded, Loading, Request

ReportLoading = Callable[[Loading], None]


class Engine(Protocol):
    """One loaded model."""

    @property
    def loaded(self) -> Loaded:
        """What the model said of itself when it was loaded."""

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None where there is no worker."""

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when the engine has ended without being asked to; its result says why, for people."""

    def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        """Answer one request.

        Yields events for `request.id` up to and including the one that is a `protocol.Last`. Closing the generator
        cancels the request. Raises `errors.ApiError`: InvalidRequest, ContextLengthExceeded, GenerationFailed;
        ModelUnavailable when the engine ends before the answer does.
        """

    async def close(self) -> None:
        """End it and give its memory back. Requests that still run get ModelUnavailable."""
