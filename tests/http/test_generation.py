"""Several prompts of one request look like one: one count of choices, one end, and one error for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from localapi.errors import GenerationFailed
from localapi.http.generation import as_one
from localapi.worker.protocol import Complete, Delta, Ended, Event, Finished, Prefill

FIRST, SECOND = Complete(id=7, prompt="a", n=2), Complete(id=9, prompt="b")


async def answering(*events: Event | Exception) -> AsyncGenerator[Event, None]:
    for event in events:
        if isinstance(event, Exception):
            raise event
        yield event


async def test_choices_are_counted_through_and_usage_is_summed_up_at_the_end() -> None:
    first = answering(Delta(7, "x", 0), Delta(7, "y", 1), Ended(7, 1, "stop"), Finished(7, 1, 2, 1, 1))
    second = answering(Prefill(9, 1, 2), Delta(9, "z"), Finished(9, 10, 20, 5, 3))
    events = [event async for event in as_one([FIRST, SECOND], [first, second])]
    assert {event.text: event.choice for event in events if isinstance(event, Delta)} == {"x": 0, "y": 1, "z": 2}
    assert [event for event in events if isinstance(event, Ended)] == [Ended(7, 1, "stop")]
    assert [event for event in events if isinstance(event, Finished)] == [Finished(7, 11, 22, 6, 4)]
    assert events[-1] == Finished(7, 11, 22, 6, 4)


@pytest.mark.parametrize("fails", [True, False])
async def test_the_first_that_fails_ends_the_others_and_so_does_a_client_that_leaves(fails: bool) -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncGenerator[Event, None]:
        try:
            while True:
                yield Delta(9, "z")
                await asyncio.sleep(0)
        finally:
            ended.set()

    other = answering(Delta(7, "x"), GenerationFailed("no more")) if fails else answering(Delta(7, "x"))
    events = as_one([FIRST, SECOND], [other, endless()])
    if fails:
        with pytest.raises(GenerationFailed):
            async for _ in events:
                pass
    else:
        await anext(events)
        await events.aclose()
    assert ended.is_set()
