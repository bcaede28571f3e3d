"""One request's right to use an instance, and what of the instance's faults the request need not see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from localapi.admission import Admission, Turn
from localapi.backends.engine import Engine
from localapi.errors import RequestTimeout
from localapi.manifest import Entry
from localapi.worker.protocol import Event, Request


@dataclass(frozen=True)
class Lease:
    """What a request works with: its entry as it was when it came, and a loaded engine."""

    entry: Entry
    engine: Engine
    admission: Admission
    turn: Turn

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        """As the engine answers. Raises what it raises, and RequestTimeout."""
        async with aclosing(self.engine.answer(request)) as events:
            while (item := await self._in_time(events)) is not None:
                yield item

    async def _in_time(self, events: AsyncGenerator[Event, None]) -> Event | None:
        """The next event; None at the end."""
        seconds = self.admission.serving.request_timeout_seconds
        if seconds is None or self.turn.begun is None:
            return await anext(events, None)
        deadline = asyncio.timeout_at(self.turn.begun + seconds)
        try:
            async with deadline:
                return await anext(events, None)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise RequestTimeout(
                f"{self.entry.id} had not answered after {seconds:g} s (request_timeout_seconds). Ask for less, or "
                "raise it in the manifest."
            ) from None
