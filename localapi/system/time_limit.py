"""Run Python code with a time limit, after which it is interrupted between two instructions, on any thread.

A signal would reach only the main thread. A single call into C cannot be interrupted;
`worker.llm.bounded_template` refuses what would make such calls slow.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

AGAIN_SECONDS = 0.25
"""Interval for repeating an interruption, which may get lost in a finalizer or in a bare `except`."""
Result = TypeVar("Result")

# By item, not by attribute, so that other users of ctypes.pythonapi keep their own argument types.
_interrupt = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
_interrupt.argtypes = (ctypes.c_ulong, ctypes.py_object)


class TimeLimitExceeded(Exception):
    """The work exceeded its time limit and was abandoned."""


class _Interrupted(BaseException):
    """Raised inside the work, where `except Exception` does not catch it."""


class _Watch:
    """Watch that interrupts a thread repeatedly, from some time after `begin` until `stop`."""

    def __init__(self, thread: int, seconds: float) -> None:
        self._thread = thread
        self._seconds = seconds
        self._interrupted = False
        self._begun = threading.Event()
        self._stopped = threading.Event()
        self._timer = threading.Thread(target=self._run, name="time limit", daemon=True)
        self._timer.start()

    def _run(self) -> None:
        self._begun.wait()
        seconds = self._seconds
        while not self._stopped.wait(seconds):
            self._interrupted = True
            _interrupt(self._thread, _Interrupted)
            seconds = AGAIN_SECONDS

    def begin(self) -> None:
        """Start the time limit. From here on, the thread may be interrupted anywhere."""
        self._begun.set()

    def stop(self) -> None:
        """Stop the interruptions. Called by the watched thread, and again if it is interrupted here."""
        self._stopped.set()
        self._begun.set()
        self._timer.join()
        if self._interrupted:
            # One may still be pending. Replacing it by NULL would leave Python 3.11 and 3.12 looking for it before
            # every call and loop from then on; only its arrival ends that.
            self._interrupted = False
            _interrupt(self._thread, _Interrupted)
            for _ in range(100):
                pass


def limited(seconds: float, work: Callable[[], Result]) -> Result:
    """Return the result of the work. Raise its exception, or TimeLimitExceeded if it does not end in time."""
    watch = _Watch(threading.get_ident(), seconds)
    try:
        try:
            watch.begin()
            return work()
        finally:
            _stop(watch)
    except _Interrupted:
        _stop(watch)  # again, because the interruption may have come before the first call began
        raise TimeLimitExceeded(f"it took longer than {seconds:g} s") from None


def _stop(watch: _Watch) -> None:
    while True:
        try:
            watch.stop()
        except _Interrupted:
            continue
        return
