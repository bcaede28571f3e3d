"""Calls that may never return, as a read from a network drive that does not answer, beside the event loop.

A process waits at its end for the threads of asyncio.to_thread. It does not wait for these.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
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
