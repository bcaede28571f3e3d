"""Admission, waiting and refusal: the policy as tables, and the queue that carries it out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from localapi.backends.echo import Echo
from localapi.errors import ModelBusy
from localapi.runtime.queue import LONGEST_RETRY_SECONDS, UNKNOWN_SECONDS, Occupancy, Queue, Ticket

pytestmark = pytest.mark.everyday


@pytest.mark.parametrize(
    ("occupancy", "waiting", "free_slots"),
    [
        (Occupancy(), 0, None),
        (Occupancy(sent=3), 0, None),
        (Occupancy(sent=3, max_concurrent=4), 0, 1),
        (Occupancy(sent=3, max_batch=3), 0, 0),
        (Occupancy(sent=3, max_batch=2), 0, 0),
        (Occupancy(sent=1, max_concurrent=4, max_batch=2), 0, 1),
        (Occupancy(queued=2, admitted=1, max_concurrent=1), 3, 1),
        (Occupancy(sent=3, queued_in_engine=1, max_batch=4), 1, 0),  # memory is short, though it has a slot
        (Occupancy(sent=1, queued_in_engine=2), 1, 0),  # one that left is still queued there
    ],
)
def test_how_many_wait_and_how_many_more_can_be_worked_on(
    occupancy: Occupancy, waiting: int, free_slots: int | None
) -> None:
    assert (occupancy.waiting, occupancy.free_slots) == (waiting, free_slots)


@pytest.mark.parametrize(
    ("occupancy", "is_full"),
    [
        (Occupancy(queued=1000), False),  # no limit
        (Occupancy(sent=3, max_waiting=0), False),  # an engine that keeps nobody waiting
        (Occupancy(sent=3, max_waiting=0, max_batch=4), False),
        (Occupancy(sent=3, max_waiting=0, max_batch=3), True),
        (Occupancy(sent=3, max_waiting=1, max_batch=3), False),
        (Occupancy(sent=3, max_waiting=1, max_batch=4, queued_in_engine=1), True),
        (Occupancy(sent=3, max_waiting=2, max_batch=2, queued_in_engine=1), False),
        (Occupancy(sent=3, max_waiting=2, max_batch=2, queued_in_engine=2), True),
        (Occupancy(max_waiting=0, max_concurrent=1), False),  # it waits for the model alone
        (Occupancy(admitted=1, max_waiting=0, max_concurrent=1), True),
        (Occupancy(admitted=1, queued=1, max_waiting=1, max_concurrent=1), True),
        (Occupancy(sent=1, queued=1, max_waiting=2, max_concurrent=1), False),
    ],
)
def test_whether_one_more_is_refused(occupancy: Occupancy, is_full: bool) -> None:
    assert occupancy.is_full is is_full


@pytest.mark.parametrize(
    ("occupancy", "admissible"),
    [
        (Occupancy(queued=3), 3),
        (Occupancy(queued=3, max_concurrent=2), 2),
        (Occupancy(queued=3, sent=1, max_concurrent=2), 1),
        (Occupancy(queued=3, admitted=1, sent=1, max_concurrent=2), 0),
        (Occupancy(queued=3, sent=4, max_concurrent=2), 0),  # an edit allows fewer than there are
        (Occupancy(queued=3, sent=4, max_batch=2), 3),  # the engine has a queue of its own
    ],
)
def test_how_many_leave_the_queue(occupancy: Occupancy, admissible: int) -> None:
    assert occupancy.admissible == admissible


@pytest.mark.parametrize(
    ("occupancy", "unanswered", "queued", "inside"),
    [
        (Occupancy(queued=2, sent=4), 4, [1, 2], [None] * 4),
        (Occupancy(queued=2, sent=4, queued_in_engine=2), 4, [3, 4], [None, None, 1, 2]),
        (Occupancy(queued=2, sent=4, queued_in_engine=1), 3, [2, 3], [None, None, 1]),
        (Occupancy(queued=1, admitted=2), 0, [3], []),  # two wait for the model to be loaded
    ],
)
def test_a_position_counts_those_queued_inside_the_engine(
    occupancy: Occupancy, unanswered: int, queued: list[int], inside: list[int | None]
) -> None:
    assert [occupancy.position(index) for index in range(occupancy.queued)] == queued
    assert [occupancy.position_in_engine(index, unanswered) for index in range(unanswered)] == inside


@pytest.mark.parametrize(
    ("occupancy", "each_seconds", "seconds"),
    [
        (Occupancy(sent=1, max_concurrent=1), 4, 4),
        (Occupancy(sent=1, queued=3, max_concurrent=1), 4, 16),
        (Occupancy(sent=4, queued=3, max_concurrent=4), 4, 4),
        (Occupancy(sent=2, queued_in_engine=1), 4, 4),
        (Occupancy(sent=1, max_batch=1), 0.01, 1),
        (Occupancy(sent=1, queued=1000, max_batch=1), 60, LONGEST_RETRY_SECONDS),
    ],
)
def test_when_to_try_again(occupancy: Occupancy, each_seconds: float, seconds: float) -> None:
    assert occupancy.retry_seconds(each_seconds) == seconds


@dataclass
class FakeEngine:
    max_batch: int | None = None
    queued: int = 0


def queue_of(engine: FakeEngine | None = None, **options: Any) -> Queue:
    return Queue("m", Echo(backend="echo", **options), engine or FakeEngine())


@contextlib.contextmanager
def sent(queue: Queue, *tickets: Ticket) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for ticket in tickets:
            stack.enter_context(queue.enter(ticket))
            queue.send(ticket)
        yield


def test_positions_follow_the_order_of_arrival_here_and_inside_the_engine() -> None:
    engine = FakeEngine(max_batch=2)
    queue = queue_of(engine, max_concurrent=4)
    tickets = [Ticket() for _ in range(6)]
    with contextlib.ExitStack() as stack:
        for ticket in tickets:
            stack.enter_context(queue.enter(ticket))
        for ticket in tickets[:4]:
            queue.send(ticket)  # and nobody has told yet that two of them are queued there
        assert [queue.position(ticket) for ticket in tickets] == [None, None, None, None, 1, 2]
        engine.queued = 2
        assert [queue.position(ticket) for ticket in tickets] == [None, None, 1, 2, 3, 4]
        tickets[2].answer()
        engine.queued = 1
        assert [queue.position(ticket) for ticket in tickets] == [None, None, None, 1, 2, 3]


async def test_one_who_leaves_lets_the_next_in() -> None:
    queue = queue_of(max_concurrent=1)
    tickets = [Ticket() for _ in range(3)]
    with contextlib.ExitStack() as last:
        with contextlib.ExitStack() as first:
            first.enter_context(queue.enter(tickets[0]))
            with queue.enter(tickets[1]):
                last.enter_context(queue.enter(tickets[2]))
                await tickets[0].admitted()
            assert queue.position(tickets[2]) == 2
        await tickets[2].admitted()


async def test_an_edit_admits_more_and_the_end_of_the_entry_admits_all() -> None:
    queue = queue_of(max_concurrent=1)
    tickets = [Ticket() for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for ticket in tickets:
            stack.enter_context(queue.enter(ticket))
        queue.follow(Echo(backend="echo", max_concurrent=2))
        await tickets[1].admitted()
        assert queue.occupancy.queued == 2
        queue.close()
        await tickets[3].admitted()


async def test_an_edit_of_the_time_limit_holds_for_those_who_wait_already() -> None:
    queue = queue_of(max_concurrent=1, queue_timeout_seconds=60)
    ticket = Ticket()

    async def wait() -> None:
        async with queue.wait(ticket):
            queue.follow(Echo(backend="echo", max_concurrent=1, queue_timeout_seconds=0.001))
            await ticket.admitted()

    with sent(queue, Ticket()), queue.enter(ticket), pytest.raises(ModelBusy):
        await wait()


async def test_a_request_that_the_engine_has_begun_with_waits_no_more() -> None:
    queue = queue_of(queue_timeout_seconds=0.001)
    ticket = Ticket()
    with queue.enter(ticket):
        async with queue.wait(ticket):
            queue.send(ticket)
            await asyncio.sleep(0.01)


def test_another_engine_has_nothing_to_work_on_yet() -> None:
    queue = queue_of(FakeEngine(max_batch=1), max_waiting=0)
    with sent(queue, Ticket()):
        with pytest.raises(ModelBusy), queue.enter(Ticket()):
            """It is full."""
        queue.replace_engine(FakeEngine(max_batch=1))
        with queue.enter(Ticket()):
            assert queue.occupancy.sent == 0


def test_the_time_to_retry_follows_from_the_work_and_not_from_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("localapi.runtime.queue.time.monotonic", lambda: now)
    engine = FakeEngine(max_batch=1)
    queue = queue_of(engine, max_waiting=1)
    working, waited = Ticket(), Ticket()
    with sent(queue, working):
        with pytest.raises(ModelBusy) as busy, queue.enter(waited), queue.enter(Ticket()):
            """It is full."""
        assert busy.value.retry_after_seconds == 2 * UNKNOWN_SECONDS
        with sent(queue, waited):
            engine.queued = 1
            now += 100
            waited.start()
            now += 4
        with pytest.raises(ModelBusy) as busy, queue.enter(Ticket()):
            """It is full."""
    assert busy.value.retry_after_seconds == 2 * 4
