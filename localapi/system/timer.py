"""A timer that can be restarted and stopped, a time limit for many waits, and growing pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def growing_pause(failures: int, first_seconds: float, longest_seconds: float) -> float:
    """Return the seconds to pause after this many consecutive failures, at least one.

    Each failure doubles the pause.
    """
    return min(first_seconds * 2.0 ** min(failures - 1, 30), longest_seconds)


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
        """Schedule the call in `seconds`, replacing an earlier schedule."""
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


class WaitLimit:
    """Time limit for consecutive waits of one task. Call `stop` last.

    `asyncio.timeout` creates and cancels a timer for each wait. Here, a timer that fires too early is set again, so
    that many short waits cost next to nothing.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._expired = False

    async def wait(self, step: Awaitable[T], until: float) -> T:
        """Return the result of a step.

        Raise TimeoutError if it takes longer than until this time of the monotonic clock.
        """
        self._until = until
        if self._timer is None or self._timer.when() > until:
            self._set()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # the caller is one
        cancelled, self._waiting = task.cancelling(), task
        try:
            return await step
        except asyncio.CancelledError:
            if self._expired and task.uncancel() <= cancelled:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None

    def stop(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_at(self._until, self._come)

    def _come(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait sets the timer
        if asyncio.get_running_loop().time() < self._until:
            self._set()
            return
        self._expired = True
        self._waiting.cancel()
