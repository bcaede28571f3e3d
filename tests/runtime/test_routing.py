"""Pools: which member answers, who is passed over and rests, and what a client gets if nobody can answer.

The engines are the tests' own: each does what a test has written for its entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

import pytest

from localapi.backends.engine import Engine, ReportLoading, Vitals
from localapi.backends.options import ChatOptions
from localapi.backends.pool import ChatPool
from localapi.errors import (
    ApiError,
    GenerationFailed,
    InvalidRequest,
    LoadFailed,
    ModelBusy,
    ModelNotFound,
    NoMember,
    WorkerEnded,
)
from localapi.kinds import CHAT
from localapi.manifest import Entry, Manifest, ServerOptions
from localapi.runtime import by_hand
from localapi.runtime.lease import Lease
from localapi.runtime.pool import Pool, rest_seconds
from localapi.runtime.queue import Ticket
from localapi.runtime.registry import Registry
from localapi.runtime.routing import answers
from localapi.worker.protocol import Chat, ComesWhole, Delta, Event, Finished, Loaded, Message, Prefill, Request

Act = Callable[[], AsyncGenerator[str, None]]


SIGNS: dict[str, Event] = {"prefill": Prefill(0, 1, 2), "whole": ComesWhole(0)}
"""What a word of an act says that is no answer."""


class Played(ChatOptions):
    """A model that does what its test has written."""

    backend: Literal["played"]
    path: str = ""

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return PlayedEngine(name)


class PlayedEngine:
    """An engine that says its own name."""

    acts: dict[str, Act | Exception]
    log: list[str]
    news: asyncio.Event

    def __init__(self, name: str) -> None:
        self.name = name
        self.loaded = Loaded()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.healthy = True

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        self.log.append(self.name)
        self.news.set()
        act = self.acts.get(self.name)
        if isinstance(act, Exception):
            raise act
        try:
            if act is None:
                yield Delta(request.id, self.name)
            else:
                async with aclosing(act()) as words:
                    async for word in words:
                        yield SIGNS.get(word, Delta(request.id, word))
        except asyncio.CancelledError:
            self.log.append(f"{self.name} cancelled")
            raise
        yield Finished(request.id, 1, 1)

    def vitals(self) -> Vitals:
        return Vitals(healthy=self.healthy, reason=None if self.healthy else "it said so")

    def end(self, reason: str) -> None:
        self.ended.set_result(reason)

    async def close(self) -> None:
        """Nothing to give back."""


def manifest(**entries: ChatOptions | ChatPool) -> Manifest:
    server = ServerOptions()
    return Manifest(entries={name: Entry.of(name, options, server=server) for name, options in entries.items()})


def played(**options: Any) -> Played:
    return Played(backend="played", **options)


def pool_of(*names: str, **options: Any) -> ChatPool:
    return ChatPool.model_validate({"backend": "pool", "of": list(names), **options})


class House:
    """A registry, and what its engines do."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.acts: dict[str, Act | Exception] = {}
        self.log: list[str] = []
        self.news = asyncio.Event()
        PlayedEngine.acts, PlayedEngine.log, PlayedEngine.news = self.acts, self.log, self.news

    def serve(self, **entries: ChatOptions | ChatPool) -> None:
        self.registry.commit(manifest(**entries), {})

    @property
    def pool(self) -> Pool:
        pool = self.registry.instance("pool")
        assert isinstance(pool, Pool)
        return pool

    async def asked(self, count: int = 1) -> None:
        """Wait until engines have been asked so often."""
        while len(self.log) < count:
            self.news.clear()
            await self.news.wait()

    @asynccontextmanager
    async def occupied(self, name: str) -> AsyncGenerator[None, None]:
        """Let a request by this name be answered inside the block."""
        self.acts["a"] = never
        request = asyncio.create_task(self.ask(name=name))
        await self.asked()
        del self.acts["a"]
        yield
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    async def ask(self, *turns: str, name: str = "pool", ticket: Ticket | None = None) -> str:
        chat = Chat(id=1, messages=[Message("user", turn) for turn in turns or ("hello",)])

        async def use(lease: Lease) -> AsyncGenerator[Event, None]:
            async with aclosing(lease.answer(chat)) as events:
                async for event in events:
                    yield event

        text = ""
        async with aclosing(answers(self.registry, name, CHAT, ticket or Ticket(), use, about=[chat])) as events:
            async for event in events:
                text += event.text if isinstance(event, Delta) else ""
        return text


@pytest.fixture
async def house() -> AsyncGenerator[House, None]:
    house = House()
    house.serve(a=played(), b=played(), pool=pool_of("a", "b"))
    yield house
    await house.registry.close()


async def never() -> AsyncGenerator[str, None]:
    await asyncio.Event().wait()
    yield ""


async def reads_for_ever() -> AsyncGenerator[str, None]:
    yield "prefill"
    await asyncio.Event().wait()


async def breaks_off() -> AsyncGenerator[str, None]:
    yield "half"
    raise WorkerEnded("gone")


async def breaks_off_while_it_reads() -> AsyncGenerator[str, None]:
    yield "prefill"
    raise WorkerEnded("gone")


async def test_the_first_member_answers_and_both_answer_by_their_own_names(house: House) -> None:
    assert [await house.ask(), await house.ask(name="b"), await house.ask()] == ["a", "b", "a"]


@pytest.mark.parametrize(
    "fault",
    [GenerationFailed("out of order"), LoadFailed("no file"), ModelNotFound("not there"), breaks_off_while_it_reads],
)
async def test_a_member_that_fails_before_its_first_word_is_passed_over_and_rests(house: House, fault: Any) -> None:
    house.acts["a"] = fault
    assert [await house.ask(), await house.ask()] == ["b", "b"]
    assert house.log == ["a", "b", "b"]
    record = house.pool.record(house.pool.members[0])
    assert (record.passed_over, record.failures) == (1, 1)
    assert 0 < record.rest_seconds <= rest_seconds(1)


async def test_a_member_that_has_begun_is_not_replaced(house: House) -> None:
    house.acts["a"] = breaks_off
    with pytest.raises(WorkerEnded):
        await house.ask()
    assert house.log == ["a"]


async def test_a_fault_of_the_request_goes_to_the_client(house: House) -> None:
    house.acts["a"] = InvalidRequest("too hot", param="temperature")
    with pytest.raises(InvalidRequest) as caught:
        await house.ask()
    assert (caught.value.param, house.log) == ("temperature", ["a"])


async def test_a_busy_member_is_passed_over_without_a_rest(house: House) -> None:
    house.acts["a"] = ModelBusy("later", retry_after_seconds=60)
    assert await house.ask() == "b"
    del house.acts["a"]
    assert await house.ask() == "a"


async def test_a_full_queue_spills_over_and_shared_limits_count_every_request(house: House) -> None:
    house.serve(a=played(max_concurrent=1, max_waiting=0), b=played(), pool=pool_of("a", "b"))
    async with house.occupied("a"):
        assert await house.ask() == "b"
    assert await house.ask() == "a"


async def test_requests_spill_over_at_the_limit_of_the_pool(house: House) -> None:
    house.serve(a=played(), b=played(), pool=pool_of("a", "b", spill_over_at=1))
    async with house.occupied("pool"):
        assert await house.ask() == "b"


async def test_the_least_busy_member_answers(house: House) -> None:
    house.serve(a=played(), b=played(), pool=pool_of("a", "b", choose="least-busy"))
    house.acts |= {"a": never, "b": never}
    running = [asyncio.create_task(house.ask()) for _ in range(6)]
    await house.asked(6)
    assert sorted(house.log) == list("aaabbb")
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert house.pool.leases == 0


@pytest.mark.parametrize("act", [never, reads_for_ever])
async def test_a_member_that_does_not_begin_in_time_is_cancelled_and_passed_over(house: House, act: Act) -> None:
    house.serve(a=played(), b=played(), pool=pool_of("a", "b", give_up_after={"first_token": 0.3}))
    house.acts["a"] = act
    assert await house.ask() == "b"
    assert house.log == ["a", "a cancelled", "b"]
    assert house.registry.instance("a").leases == 0


async def test_an_answer_that_has_begun_may_take_longer_than_the_first_token(house: House) -> None:
    async def slow() -> AsyncGenerator[str, None]:
        yield "one"
        await asyncio.sleep(0.4)
        yield " two"

    house.serve(a=played(), b=played(), pool=pool_of("a", "b", give_up_after={"first_token": 0.3}))
    house.acts["a"] = slow
    assert await house.ask() == "one two"


async def test_a_reply_that_comes_whole_may_take_longer_than_the_first_token(house: House) -> None:
    async def whole() -> AsyncGenerator[str, None]:
        yield "whole"
        await asyncio.sleep(0.4)
        yield "one"

    house.serve(a=played(), b=played(), pool=pool_of("a", "b", give_up_after={"first_token": 0.3}))
    house.acts["a"] = whole
    assert await house.ask() == "one"


async def test_if_nobody_can_answer_the_error_names_each_member_and_its_reason(house: House) -> None:
    house.acts |= {"a": GenerationFailed("out of order"), "b": LoadFailed("no file")}
    with pytest.raises(NoMember) as caught:
        await house.ask()
    message = caught.value.message
    assert all(part in message for part in ("a: out of order", "b: no file"))
    assert caught.value.beside == {"a", "b"}
    assert not any(part in caught.value.unnamed for part in ("out of order", "no file"))
    assert 1 <= (caught.value.retry_after_seconds or 0) <= rest_seconds(1)
    assert house.pool.vitals.healthy is False
    assert "no file" in (house.pool.vitals.reason or "")


async def test_a_pool_of_members_that_are_not_known_has_nobody_to_expect(house: House) -> None:
    house.serve(pool=pool_of("peer/a"))
    with pytest.raises(NoMember, match="peers"):
        house.registry.expected(house.registry.resolve("pool", CHAT))
    with pytest.raises(NoMember):
        await house.ask()


async def test_members_that_rest_are_asked_if_nobody_else_is_left(house: House) -> None:
    house.acts |= {"a": GenerationFailed("out of order"), "b": GenerationFailed("out of order")}
    with pytest.raises(NoMember):
        await house.ask()
    house.acts.clear()
    assert await house.ask() in ("a", "b")
    assert house.pool.vitals.healthy is True


async def test_if_all_members_are_busy_the_client_should_come_back_later(house: House) -> None:
    house.acts |= {"a": ModelBusy("later", retry_after_seconds=9), "b": ModelBusy("later", retry_after_seconds=7)}
    with pytest.raises(ModelBusy) as caught:
        await house.ask()
    assert caught.value.retry_after_seconds == 7


async def test_a_worker_that_ended_is_asked_again_if_nobody_else_can_answer(house: House) -> None:
    faults = [WorkerEnded("gone")]

    async def once() -> AsyncGenerator[str, None]:
        if faults:
            raise faults.pop()
        yield "a"

    house.acts |= {"a": once, "b": LoadFailed("no file")}
    assert await house.ask() == "a"
    assert house.log == ["a", "b", "a"]


async def test_several_requests_that_meet_one_outage_count_once(house: House) -> None:
    house.acts["a"] = GenerationFailed("out of order")
    assert await asyncio.gather(*(house.ask() for _ in range(8))) == ["b"] * 8
    assert house.pool.record(house.pool.members[0]).failures == 1


@pytest.mark.parametrize(("failures", "seconds"), [(1, 2), (2, 4), (3, 8), (6, 60), (1000, 60)])
def test_rests_grow_to_a_limit(failures: int, seconds: float) -> None:
    assert rest_seconds(failures) == seconds


async def test_a_member_that_says_it_is_not_healthy_is_passed_over_until_it_is(house: House) -> None:
    assert await house.ask() == "a"
    engine = house.registry.instance("a").engine
    assert isinstance(engine, PlayedEngine)
    engine.healthy = False
    assert await house.ask() == "b"
    engine.healthy = True
    assert await house.ask() == "a"


async def test_a_conversation_stays_with_its_member(house: House) -> None:
    house.serve(a=played(), b=played(), pool=pool_of("a", "b", choose="sticky"))
    async with house.occupied("a"):
        assert await house.ask("one") == "b"
    assert [await house.ask("one", "two"), await house.ask("other")] == ["b", "a"]
    house.acts["b"] = GenerationFailed("out of order")
    assert await house.ask("one", "two", "three") == "a"


async def test_an_edit_of_the_pool_is_followed_by_the_next_request_and_what_runs_goes_on(house: House) -> None:
    go = asyncio.Event()

    async def waits() -> AsyncGenerator[str, None]:
        yield "a"
        await go.wait()

    house.acts["a"] = waits
    running = asyncio.create_task(house.ask())
    await house.asked()
    pool = house.pool
    house.serve(a=played(), b=played(), pool=pool_of("b"))
    assert house.pool is pool
    assert await house.ask() == "b"
    house.serve(b=played(), pool=pool_of("b"))
    go.set()
    assert await running == "a"


async def test_a_request_that_waits_at_a_removed_member_goes_on_to_another(house: House) -> None:
    house.serve(a=played(max_concurrent=1), b=played(), pool=pool_of("a", "b"))
    async with house.occupied("a"):
        waiting = asyncio.create_task(house.ask())
        await asyncio.sleep(0)
        assert house.registry.queues["a"].occupancy.queued == 1
        house.serve(b=played(), pool=pool_of("b"))
        assert await waiting == "b"


async def test_a_request_follows_an_entry_that_becomes_a_pool_and_back(house: House) -> None:
    house.serve(a=played(max_concurrent=1), b=played(), pool=pool_of("b"))
    async with house.occupied("a"):
        waiting = asyncio.create_task(house.ask(name="a"))
        await asyncio.sleep(0)
        house.serve(a=pool_of("b"), b=played())
        assert await waiting == "b"
    house.serve(a=played(), b=played())
    assert await house.ask(name="a") == "a"


async def test_a_pool_has_limits_of_its_own(house: House) -> None:
    house.serve(a=played(), b=played(), pool=pool_of("a", "b", max_concurrent=1, max_waiting=0))
    async with house.occupied("pool"):
        with pytest.raises(ModelBusy):
            await house.ask()


async def test_loading_a_pool_loads_the_member_that_would_answer_and_unloading_names_the_members(house: House) -> None:
    assert (await by_hand.load(house.registry, "pool")).name == "a"
    assert house.pool.state == "ready"
    for act in (by_hand.unload, by_hand.pin):
        with pytest.raises(InvalidRequest):
            await act(house.registry, "pool")
    with pytest.raises(ApiError):
        by_hand.unpin(house.registry, "pool")
