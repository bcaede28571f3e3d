"""Gate for new leases, closed while an instance is replaced, unloaded, or emptied for another model."""

from __future__ import annotations

import asyncio
from enum import Enum


class Pause(Enum):
    """Reason why an instance temporarily accepts no new leases."""

    SWAP = "swap"
    MEMORY = "memory"
    UNLOAD = "unload"


class Gate:
    """Gate that is closed while there is a reason to pause; several reasons may overlap."""

    def __init__(self) -> None:
        self._pauses: set[Pause] = set()
        self._open = asyncio.Event()
        self._open.set()

    @property
    def is_open(self) -> bool:
        """True if new leases need not wait."""
        return not self._pauses

    def close(self, reason: Pause) -> None:
        """Make new leases wait until `open` is called for the same reason."""
        self._pauses.add(reason)
        self._open.clear()

    def open(self, reason: Pause) -> bool:
        """End a pause, and return True if there was one."""
        was_closed = reason in self._pauses
        self._pauses.discard(reason)
        if not self._pauses:
            self._open.set()
        return was_closed

    def open_for_good(self) -> None:
        """End all pauses."""
        self._pauses.clear()
        self._open.set()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._open.wait()
