"""Run calls that may never return, such as reads from a dead network drive, in threads.

On exit, a process waits for threads of asyncio.to_thread, but not for these.
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
    """Await a blocking call in a thread. A cancellation abandons the thread."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(call)
        except Exception as error:  # passed on to the caller
            tell(lambda error=error: outcome.set_exception(error))  # type: ignore[misc]
        else:
            tell(lambda: outcome.set_result(result))

    def tell(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(lambda: None if outcome.done() else settle())

    threading.Thread(target=run, name="aside", daemon=True).start()
    return await outcome


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a blocking call without an event loop. Raise its exception, or TimeoutError."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except Exception as error:  # passed on to the caller
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=run, name="within", daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError:
        if outcome.done():  # a TimeoutError of the call itself
            raise
        raise TimeoutError(f"no response within {seconds:g} s") from None
