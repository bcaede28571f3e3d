"""The pace at which connections are made."""

from __future__ import annotations

import asyncio

import pytest

from localapi.backends.http_transport import BURST, Turn, Turns

pytestmark = pytest.mark.everyday

MADE = "connection.connect_tcp.started"


async def connecting(turns: Turns, count: int) -> tuple[list[Turn], list[asyncio.Task[None]]]:
    each = [Turn(turns) for _ in range(count)]
    tasks = [asyncio.create_task(turn.wait(MADE, {})) for turn in each]
    await asyncio.sleep(0)
    return each, tasks


async def test_a_few_connections_are_made_at_once_and_others_when_those_are_answered() -> None:
    turns = Turns()
    turns.seconds = 3600
    each, tasks = await connecting(turns, BURST + 2)
    assert [task.done() for task in tasks] == [True] * BURST + [False] * 2
    each[0].end()
    each[0].end()
    await asyncio.wait_for(tasks[BURST], 10)
    assert not tasks[BURST + 1].done()
    each[1].end()
    await asyncio.wait_for(tasks[BURST + 1], 10)
    for turn in each:
        turn.end()


async def test_a_server_that_says_nothing_delays_others_only_for_a_moment() -> None:
    each, tasks = await connecting(Turns(), 3 * BURST)
    await asyncio.wait_for(asyncio.gather(*tasks), 10)
    for turn in each:
        turn.end()


async def test_requests_that_make_no_connection_wait_for_none() -> None:
    turns = Turns()
    turns.seconds = 3600
    each, _ = await connecting(turns, BURST)
    await asyncio.wait_for(Turn(turns).wait("http11.send_request_headers.started", {}), 10)
    for turn in each:
        turn.end()
