"""Pace at which connections to one server are made.

A server has a queue of connections that it has not accepted yet. In servers of Python's library, such as mlx_lm.server,
it has five places. The system resets what comes when it is full, or lets it wait for a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

BURST: Final = 4
"""Connections that may be made at the same time."""
TURN_SECONDS: Final = 0.002
"""Time in which a server accepts a connection."""
TURN_SECONDS_OLD: Final = 0.05
"""The same for one that speaks HTTP/1.0, as those of Python's library do: it may be busy with its model."""


class Turns:
    """Turns of connections that are made to one server; not too many at a time."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(BURST)
        self.seconds = TURN_SECONDS
        """Length of a turn whose end is not noticed earlier."""

    def learn(self, http_version: str) -> None:
        """Note what the server speaks."""
        self.seconds = TURN_SECONDS_OLD if http_version == "HTTP/1.0" else TURN_SECONDS


class Turn:
    """The turn of one request, if it makes a connection. `end` comes last."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, event: str, _: Mapping[str, Any]) -> None:
        """Wait for the turn if a connection is about to be made. This is httpcore's `trace`."""
        if event == "connection.connect_tcp.started":
            await self._turns.free.acquire()
            self._timer = asyncio.get_running_loop().call_later(self._turns.seconds, self.end)

    def end(self) -> None:
        """Let the next one connect."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._turns.free.release()
