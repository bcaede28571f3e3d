"""One time limit for many waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from localapi.system.timer import WaitLimit

pytestmark = pytest.mark.everyday


@pytest.fixture
async def limit() -> AsyncIterator[WaitLimit]:
    limit = WaitLimit()
    yield limit
    limit.stop()


async def test_a_wait_ends_at_its_time(limit: WaitLimit) -> None:
    with pytest.raises(TimeoutError):
        await limit.wait(asyncio.Event().wait(), time.monotonic() + 0.01)
    assert await limit.wait(asyncio.sleep(0, "later"), time.monotonic() + 60) == "later"


async def test_short_waits_do_not_shorten_the_next_one(limit: WaitLimit) -> None:
    for _ in range(3):
        await limit.wait(asyncio.sleep(0), time.monotonic() + 0.01)
    assert await limit.wait(asyncio.sleep(0.05, "came"), time.monotonic() + 60) == "came"


async def test_a_limit_may_be_earlier_than_the_one_before(limit: WaitLimit) -> None:
    await limit.wait(asyncio.sleep(0), time.monotonic() + 3600)
    with pytest.raises(TimeoutError):
        await limit.wait(asyncio.Event().wait(), time.monotonic() + 0.01)


async def test_between_waits_nothing_is_cancelled(limit: WaitLimit) -> None:
    await limit.wait(asyncio.sleep(0), time.monotonic())
    await asyncio.sleep(0.02)
    assert await limit.wait(asyncio.sleep(0, "came"), time.monotonic() + 60) == "came"


async def test_a_cancelled_wait_is_no_timeout(limit: WaitLimit) -> None:
    task = asyncio.create_task(limit.wait(asyncio.Event().wait(), time.monotonic() + 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
