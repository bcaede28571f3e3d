"""Engines inside the server know their load: the requests that wait for output, and those that have some."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from localapi.backends.engine import InProcessEngine
from localapi.worker.protocol import Delta, Event, Finished, Request, Tokenize

pytestmark = pytest.mark.everyday


class Slow(InProcessEngine):
    """An engine whose answers wait for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.begin = asyncio.Event()

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        self.asked.set()
        await self.begin.wait()
        yield Delta(request.id, "text")
        yield Finished(request.id, 1, 1)


def load(engine: InProcessEngine) -> tuple[int, int]:
    vitals = engine.vitals()
    return vitals.running, vitals.unanswered


async def test_a_request_is_counted_from_its_beginning_to_its_end() -> None:
    engine = Slow()
    answer = engine.answer(Tokenize(1))
    assert load(engine) == (0, 0)
    first = asyncio.create_task(anext(answer))
    await engine.asked.wait()
    assert load(engine) == (0, 1)
    engine.begin.set()
    await first
    assert load(engine) == (1, 0)
    assert [event async for event in answer] == [Finished(1, 1, 1)]
    assert load(engine) == (0, 0)


async def test_a_request_whose_client_leaves_is_counted_no_more() -> None:
    engine = Slow()
    engine.begin.set()
    answer = engine.answer(Tokenize(1))
    await anext(answer)
    await answer.aclose()
    assert load(engine) == (0, 0)
    assert engine.vitals().idle


async def test_an_engine_that_is_ended_says_why() -> None:
    engine = Slow()
    engine.end("hung")
    engine.end("again")
    assert await engine.ended == "hung"
