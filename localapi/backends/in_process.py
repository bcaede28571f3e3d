"""Base of the engines that answer inside the server process."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing

from localapi.backends.engine import Vitals
from localapi.worker.protocol import Event, Loaded, Preliminary, Request


class InProcessEngine(ABC):
    """Engine that counts its requests; see `backends.engine.Engine`."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._given = 0
        self._begun = 0

    @property
    def loaded(self) -> Loaded:
        return Loaded()

    @abstractmethod
    def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events of one answer, as `Engine.answer` does."""

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        self._given += 1
        begun = False
        try:
            async with aclosing(self.generate(request)) as events:
                async for event in events:
                    if not begun and not isinstance(event, Preliminary):
                        begun = True
                        self._begun += 1
                    yield event
        finally:
            self._given -= 1
            self._begun -= begun

    def vitals(self) -> Vitals:
        return Vitals(running=self._begun, unanswered=self._given - self._begun, memory_bytes=0)

    def end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    async def close(self) -> None:  # noqa: B027  # most have no resources
        """Do nothing; engines with resources override it."""
