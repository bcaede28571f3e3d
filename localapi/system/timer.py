"""A timer that can be restarted and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Timer that calls a function in the event loop. It forms a reference cycle, so use it in long-lived objects."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """True while the call is pending."""
        return self._handle is not None

    def start(self, seconds: float) -> None:
        """Schedule the call in `seconds`, instead of an earlier schedule."""
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(seconds, self._come)

    def stop(self) -> None:
        """Cancel the call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _come(self) -> None:
        self._handle = None
        self._call()
