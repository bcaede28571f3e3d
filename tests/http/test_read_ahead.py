"""A source that is read ahead of a slow reader: what is kept, where it stops, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from localapi.errors import RequestTimeout
from localapi.http import read_ahead
from localapi.http.read_ahead import (
    LEAST_BYTES,
    MOST_BYTES,
    MOST_BYTES_OF_ALL,
    MOST_BYTES_UNPAUSED,
    OBJECT_BYTES,
    Ahead,
    Shelf,
)

pytestmark = pytest.mark.everyday


@pytest.fixture(autouse=True)
def join_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reader is slow at once."""
    monkeypatch.setattr(read_ahead, "JOIN_AFTER", 1)


class Source:
    """Counts; `error` comes in the place of an end."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.given = 0
        self.ended = asyncio.Event()
        self._count = count
        self._error = error

    async def items(self) -> AsyncGenerator[list[int], None]:
        try:
            while self.given < self._count:
                self.given += 1
                yield [self.given]
            if self._error is not None:
                raise self._error
        finally:
            self.ended.set()


@asynccontextmanager
async def read(
    source: Source,
    size: int = 1,
    join: Callable[[list[int], list[int]], bool] = lambda _, __: False,
    shelf: Shelf | None = None,
) -> AsyncIterator[Ahead[list[int]]]:
    items = Ahead(source.items(), size=lambda _: size, join=join, shelf=shelf or Shelf())
    try:
        yield items
    finally:
        await items.close()


async def rest(items: Ahead[list[int]]) -> list[int]:
    found = []
    while (item := await items.get()) is not None:
        found += item
    return found


async def quiet() -> None:
    """Let everything happen that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_source_ends_although_its_reader_has_only_begun() -> None:
    source = Source(1000)
    async with read(source) as items:
        assert await items.get() == [1]
        await source.ended.wait()
        assert await rest(items) == list(range(2, 1001))


async def test_nothing_is_fetched_before_the_reader_has_begun() -> None:
    source = Source(3)
    async with read(source) as items:
        await quiet()
        assert source.given == 0
        assert await items.begun(None)
        assert await rest(items) == [1, 2, 3]


async def test_a_reader_that_waits_gets_each_item_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "JOIN_AFTER", 2)

    def join(last: list[int], item: list[int]) -> bool:
        last += item
        return True

    source = Source(100)
    async with read(source, join=join) as items:
        assert [await items.get() for _ in range(100)] == [[at] for at in range(1, 101)]


async def test_the_source_ends_while_its_reader_keeps_the_last_item() -> None:
    source = Source(1)
    async with read(source) as items:
        assert await items.get() == [1]
        await quiet()
        assert source.ended.is_set()


async def test_what_can_be_joined_is_kept_as_one() -> None:
    def join(last: list[int], item: list[int]) -> bool:
        last += item
        return True

    source = Source(100)
    async with read(source, join=join) as items:
        await items.get()
        await source.ended.wait()
        assert [await items.get(), await items.get()] == [[2], list(range(3, 101))]
        assert await items.get() is None


async def test_the_source_waits_when_enough_is_kept_and_goes_on_when_that_is_taken() -> None:
    source, shelf = Source(9), Shelf()
    async with read(source, size=MOST_BYTES // 2, shelf=shelf) as items:
        await items.get()
        await quiet()
        assert (source.given, shelf.bytes) == (3, MOST_BYTES)
        await items.get()
        await quiet()
        assert (source.given, shelf.bytes) == (4, MOST_BYTES)
        assert await rest(items) == [3, 4, 5, 6, 7, 8, 9]
    assert shelf.bytes == 0


async def test_a_reader_that_takes_nothing_for_long_loses_the_rest_and_not_what_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_ahead, "READER_SECONDS", 0)
    source = Source(9)
    async with read(source, size=MOST_BYTES // 2) as items:
        assert await items.get() == [1]
        await source.ended.wait()
        assert [await items.get(), await items.get()] == [[2], [3]]
        with pytest.raises(RequestTimeout, match="read nothing of this response for 0 s"):
            await items.get()


async def test_a_source_that_cannot_wait_is_ended_when_enough_is_kept_and_nothing_of_that_is_lost() -> None:
    source, shelf = Source(1000), Shelf()
    items = Ahead(source.items(), size=lambda _: MOST_BYTES_UNPAUSED // 2, pausable=False, shelf=shelf)
    assert await items.get() == [1]
    await source.ended.wait()
    assert (source.given, shelf.bytes) == (3, MOST_BYTES_UNPAUSED)
    assert [await items.get(), await items.get()] == [[2], [3]]
    with pytest.raises(RequestTimeout):
        await items.get()
    await items.close()
    assert shelf.bytes == 0


async def test_text_that_is_joined_counts_by_its_length() -> None:
    def join(last: list[int], item: list[int]) -> bool:
        last += item
        return True

    source, shelf = Source(1000), Shelf()
    items = Ahead(source.items(), size=lambda _: OBJECT_BYTES + 1, join=join, shelf=shelf)
    await items.get()
    await source.ended.wait()
    assert shelf.bytes == 2 * OBJECT_BYTES + 999
    await items.close()


async def test_where_others_have_filled_the_shelf_a_little_is_kept_all_the_same() -> None:
    source, shelf = Source(9), Shelf()
    shelf.bytes = MOST_BYTES_OF_ALL
    async with read(source, size=LEAST_BYTES // 2, shelf=shelf) as items:
        await items.get()
        await quiet()
        assert source.given == 3
        assert await rest(items) == list(range(2, 10))


async def test_an_error_comes_where_the_item_would_have_come() -> None:
    async with read(Source(3, ValueError("broken"))) as items:
        assert await items.get() == [1]
        await quiet()
        assert [await items.get(), await items.get()] == [[2], [3]]
        with pytest.raises(ValueError, match="broken"):
            await items.get()


async def test_an_error_in_place_of_the_first_item_is_told_before_anything_is_read() -> None:
    async with read(Source(0, ValueError("broken"))) as items:
        with pytest.raises(ValueError, match="broken"):
            await items.begun(None)


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_closing_ends_the_source_and_gives_the_room_back(taken: int) -> None:
    source, shelf = Source(1000), Shelf()
    async with read(source, size=LEAST_BYTES, shelf=shelf) as items:
        await items.begun(None)
        for _ in range(taken):
            await items.get()
            await quiet()
    assert source.ended.is_set()
    assert source.given < 1000
    assert shelf.bytes == 0


async def test_closing_does_not_wait_for_a_source_that_has_nothing_to_give() -> None:
    ended = asyncio.Event()

    async def silent() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.set()

    items = Ahead(silent(), size=lambda _: 1)
    assert await items.get() == 1
    await quiet()
    await items.close()
    assert ended.is_set()
