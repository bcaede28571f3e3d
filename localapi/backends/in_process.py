"""Base of the engines that answer inside the server process."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing

from localapi.backends.engine import Vitals
from localapi.worker.protocol import Event, Loaded, Request


class InProcessEngine(ABC):
    """Engine that counts its requests; see `backends.engine.Engine`."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._running = 0

    @property
    def loaded(self) -> Loaded:
        return Loaded()

    @abstractmethod
    def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events of one answer, as `Engine.answer` does."""

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        self._running += 1
        try:
            async with aclosing(self.generate(request)) as events:
                async for event in events:
                    yield event
        finally:
            self._running -= 1

    def vitals(self) -> Vitals:
        return Vitals(running=self._running, memory_bytes=0)

    def end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    async def close(self) -> None:  # noqa: B027  # most have no resources
        """Do nothing; engines with resources override it."""
