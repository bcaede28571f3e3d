"""Buffer between a response and its client, so that a slow client does not block a model. There is no other buffer.

One task fetches the items as they arrive, and keeps those that the reader has not taken. So the source, and with it the
lease, ends when the engine has finished, even if much is still unread. There is a limit for each reader and one for
all. At the limit, the source waits for its reader, but not forever, because a paused player must not occupy a model. A
source that cannot wait is ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Final, Generic, TypeVar

from localapi.errors import RequestTimeout

Item = TypeVar("Item")

MEGABYTE: Final = 1024 * 1024
MOST_BYTES: Final = 16 * MEGABYTE
"""Maximum bytes kept for one reader."""
MOST_BYTES_UNPAUSED: Final = 64 * MEGABYTE
"""The same, if the source cannot wait for the reader."""
MOST_BYTES_OF_ALL: Final = 256 * MEGABYTE
READER_SECONDS: Final = 600.0
"""Maximum time that a source waits for a reader that takes nothing."""
LEAST_BYTES: Final = MEGABYTE // 4
"""Bytes that may be kept for one reader even if the limit for all is reached."""
OBJECT_BYTES: Final = 200
"""Approximate memory of a small object."""
JOIN_AFTER: Final = 64
"""Number of items kept separately. Further ones are joined, because the reader is slow."""


class Shelf:
    """Count of the bytes kept for all readers of this process."""

    def __init__(self) -> None:
        self.bytes = 0


_SHELF: Final = Shelf()


class Ahead(Generic[Item]):
    """One source and its reader.

    `size` estimates the bytes of an item; `join` appends an item to the previous one if it can, and then returns True.
    `pausable` is True if the source produces nothing until it is asked. A worker that generates text does not pause.
    """

    def __init__(
        self,
        source: AsyncGenerator[Item, None],
        *,
        size: Callable[[Item], int],
        join: Callable[[Item, Item], bool] = lambda _, __: False,
        pausable: bool = True,
        shelf: Shelf = _SHELF,
    ) -> None:
        self._source = source
        self._size = size
        self._join = join
        self._pausable = pausable
        self._most_bytes = MOST_BYTES if pausable else MOST_BYTES_UNPAUSED
        self._shelf = shelf
        self._fetching: asyncio.Task[None] | None = None
        self._kept: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._error: Exception | None = None
        self._came = asyncio.Event()
        """Set when there is something to read: an item, or the end."""
        self._taken = asyncio.Event()

    async def begun(self, seconds: float | None) -> bool:
        """Return True as soon as the first item has arrived, False after this many seconds.

        Raise the source's error.
        """
        self._begin()
        try:
            async with asyncio.timeout(seconds):
                await self._came.wait()
        except TimeoutError:
            return False
        if self._error is not None and not self._kept:
            raise self._error
        return True

    async def get(self) -> Item | None:
        """Return the next item; None at the end. Raise the source's error."""
        self._begin()
        if self.are_awaited:
            await self._came.wait()
        if not self._kept:
            if self._error is not None:
                raise self._error
            return None
        item, size = self._kept.popleft()
        if self.are_awaited:
            self._came.clear()
        self._bytes -= size
        self._shelf.bytes -= size
        self._taken.set()
        return item

    @property
    def are_awaited(self) -> bool:
        """True if the next item, or the end, is still to come."""
        return not (self._kept or self._ended)

    async def close(self) -> None:
        """End the source, wherever it is."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        await self._source.aclose()
        self._shelf.bytes -= self._bytes
        self._kept.clear()
        self._bytes = 0

    def _begin(self) -> None:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="read ahead")

    async def _fetch(self) -> None:
        try:
            async for item in self._source:
                self._keep(item)
                if len(self._kept) > 1:  # the source cannot wait, but the reader may
                    await asyncio.sleep(0)
                while self._full:
                    await self._reader()
        except Exception as error:  # raised where the item would have been returned
            self._error = error
            await self._source.aclose()
        finally:
            self._ended = True
            self._came.set()

    def _keep(self, item: Item) -> None:
        size = self._size(item)
        if len(self._kept) > JOIN_AFTER and self._join(self._kept[-1][0], item):
            last, before = self._kept.pop()
            size = max(0, size - OBJECT_BYTES)  # no longer a separate object
            self._kept.append((last, before + size))
        else:
            self._kept.append((item, size))
        self._bytes += size
        self._shelf.bytes += size
        self._came.set()

    @property
    def _full(self) -> bool:
        if self._bytes < LEAST_BYTES:
            return False
        return self._bytes >= self._most_bytes or self._shelf.bytes >= MOST_BYTES_OF_ALL

    async def _reader(self) -> None:
        """Wait until the reader has taken something. Raise RequestTimeout."""
        if not self._pausable:
            raise RequestTimeout(
                f"The client left {self._bytes // MEGABYTE} MB of this response unread, so it was ended. Read "
                f"faster, or "
                "request less at a time."
            )
        self._taken.clear()
        try:
            async with asyncio.timeout(READER_SECONDS):
                await self._taken.wait()
        except TimeoutError:
            raise RequestTimeout(
                f"The client read nothing of this response for {READER_SECONDS:g} s, so it was ended. "
                "Read faster, or request less at a time."
            ) from None
