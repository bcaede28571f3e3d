"""Several streams of events as one, in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from localapi.worker.protocol import Event

Came = asyncio.Queue[Event | Exception | None]
"""None: a source has ended."""


async def merged(sources: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
    """What all of them give. The first that raises ends the others, and so does closing this one."""
    came: Came = asyncio.Queue(1)  # a source waits until its event is wanted
    tasks = [asyncio.create_task(_pass_on(source, came)) for source in sources]
    try:
        left = len(tasks)
        while left:
            item = await came.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(source: AsyncGenerator[Event, None], came: Came) -> None:
    try:
        async with aclosing(source) as events:
            async for event in events:
                await came.put(event)
    except Exception as error:  # raised where the events are wanted
        await came.put(error)
    else:
        await came.put(None)
