"""Calls that may never return, as a read from a network drive that does not answer, in threads of their own.

A process waits at its end for the threads of asyncio.to_thread. It does not wait for these.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def aside(call: Callable[[], T]) -> T:
    """What a call that blocks returns or raises. Whoever is cancelled meanwhile leaves it to itself."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(call)
        except Exception as error:  # whatever it is, the caller gets it
            tell(lambda error=error: outcome.set_exception(error))  # type: ignore[misc]
        else:
            tell(lambda: outcome.set_result(result))

    def tell(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if outcome.done() else settle())

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await outcome


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call that blocks returns or raises, where there is no event loop. Raises TimeoutError."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except Exception as error:  # whatever it is, the caller gets it
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=run, name="within", daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError:
        if outcome.done():  # the call's own
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None
