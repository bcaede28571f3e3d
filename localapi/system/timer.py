"""Something to do once, some time from now, unless it is put off or given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Calls in the event loop. Holds what it calls, and is held by it: for objects that live long."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """Whether the call is still to come."""
        return self._handle is not None

    def start(self, seconds: float) -> None:
        """Call so many seconds from now, and not when it was to be before."""
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, self._come)

    def stop(self) -> None:
        """Do not call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _come(self) -> None:
        self._handle = None
        self._call()
