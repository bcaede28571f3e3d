"""The states of an instance: which may follow which, and what leads from one to another. No process, no timing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar, Literal

import pytest

from localapi.backends.echo import EchoEngine
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.options import ChatOptions
from localapi.errors import FilesUnreadable, LoadFailed, ModelUnavailable, NoRoom, NoRoomAhead, OutOfResources
from localapi.runtime.backoff import TOLERATED
from localapi.runtime.instance import Instance
from localapi.runtime.load import Load
from localapi.runtime.states import (
    FOLLOWING,
    Closed,
    Draining,
    Failed,
    FailureReason,
    InvalidTransition,
    Loading,
    Ready,
    State,
    Unloaded,
    check_transition,
    name_of,
)

pytestmark = pytest.mark.everyday

ALLOWED = {
    (Unloaded, Loading),
    (Unloaded, Closed),
    (Loading, Ready),
    (Loading, Failed),
    (Loading, Unloaded),  # there is no memory to load it ahead of requests
    (Loading, Draining),  # it is cancelled
    (Ready, Draining),
    (Draining, Unloaded),
    (Draining, Failed),  # its worker ended by itself
    (Draining, Loading),  # the next request does not wait until the memory is free
    (Failed, Loading),
    (Failed, Unloaded),  # there may be memory for it now
    (Failed, Closed),
}


@pytest.fixture
async def examples() -> dict[type[State], State]:
    """One state of each kind."""
    ending = asyncio.create_task(asyncio.sleep(0))
    states: list[State] = [
        Unloaded(),
        Loading(Load("m", Scripted()), Unloaded()),
        Ready(EchoEngine(), since=0.0, used=False),
        Draining(ending, Unloaded()),
        Failed(FailureReason.NOT_LOADED),
        Closed(),
    ]
    return {type(state): state for state in states}


@pytest.mark.parametrize("old", FOLLOWING, ids=lambda state: state.__name__)
@pytest.mark.parametrize("new", FOLLOWING, ids=lambda state: state.__name__)
async def test_a_state_follows_another_only_if_the_table_says_so(
    examples: dict[type[State], State], old: type[State], new: type[State]
) -> None:
    if (old, new) in ALLOWED:
        check_transition(examples[old], examples[new])
        return
    with pytest.raises(InvalidTransition):
        check_transition(examples[old], examples[new])


@pytest.mark.parametrize(
    ("state", "retired", "backing_off", "name"),
    [
        (Unloaded(), False, False, "unloaded"),
        (Unloaded(), False, True, "failed"),
        (Unloaded(), True, False, "closed"),
        (Failed(FailureReason.NOT_LOADED), False, False, "failed"),
        (Failed(FailureReason.NO_ROOM), False, False, "failed"),
        (Failed(FailureReason.WORKER_ENDED), False, False, "unloaded"),
        (Failed(FailureReason.WORKER_ENDED), False, True, "failed"),
        (Failed(FailureReason.NOT_LOADED), True, False, "closed"),
        (Closed(), True, False, "closed"),
    ],
)
async def test_the_name_of_a_state_and_of_what_drains_into_it(
    examples: dict[type[State], State], state: Unloaded | Failed, retired: bool, backing_off: bool, name: str
) -> None:
    draining = examples[Draining]
    assert isinstance(draining, Draining)
    for each in (state, Draining(draining.ending, state)):
        assert name_of(each, retired=retired, backing_off=backing_off) == name


async def test_a_retired_instance_is_still_loading_or_ready(examples: dict[type[State], State]) -> None:
    names = [name_of(examples[kind], retired=True, backing_off=False) for kind in (Loading, Ready)]
    assert names == ["loading", "ready"]


class Scripted(ChatOptions):
    """A model whose loads go as the test says."""

    gate: ClassVar[asyncio.Event]
    errors: ClassVar[list[Exception]]
    backend: Literal["scripted"] = "scripted"

    async def start(self, name: str, report: ReportLoading) -> Engine:
        await type(self).gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return EchoEngine()


class Plenty:
    """Memory without a bound."""

    def __init__(self) -> None:
        self.reserved = 0
        self.on_reserve: Callable[[int], None] = lambda _: None

    async def reserve(self, instance: Instance) -> bool:
        self.on_reserve(self.reserved)
        self.reserved += 1
        return False

    def free(self, instance: Instance) -> None:
        self.reserved -= 1

    def reconsider(self) -> None:
        """Nobody waits."""


class Full(Plenty):
    """No memory is ever free."""

    async def reserve(self, instance: Instance) -> bool:
        await asyncio.Event().wait()
        return False


@pytest.fixture
async def memory() -> Plenty:
    Scripted.gate = asyncio.Event()
    Scripted.gate.set()
    Scripted.errors = []
    return Plenty()


@pytest.fixture
async def instance(memory: Plenty) -> AsyncGenerator[Instance, None]:
    instance = Instance("m", Scripted(), since_revision=1, memory=memory)
    yield instance
    Scripted.gate.set()
    await instance.close()


async def state_after(act: Callable[[Instance], object], instance: Instance) -> str:
    act(instance)
    for _ in range(20):
        await asyncio.sleep(0)
    return instance.state


async def test_a_load_leads_through_loading_to_ready_and_unloading_frees_the_memory(
    instance: Instance, memory: Plenty
) -> None:
    assert instance.state == "unloaded"
    Scripted.gate.clear()
    assert await state_after(Instance.begin_loading, instance) == "loading"
    Scripted.gate.set()
    engine = await instance.load()
    assert (instance.state, instance.engine, memory.reserved) == ("ready", engine, 1)
    await instance.unload()
    assert (instance.state, instance.engine, memory.reserved) == ("unloaded", None, 0)


@pytest.mark.parametrize(
    ("error", "state", "lacks_memory"),
    [
        (LoadFailed("broken"), "failed", False),
        (FilesUnreadable("gone"), "failed", False),
        (OutOfResources("no descriptor"), "failed", False),
        (OSError(24, "Too many open files"), "failed", False),
        (KeyError("a bug"), "failed", False),
        (NoRoom("m needs 2 GB", beside=["n"], unnamed="it needs 2 GB"), "failed", True),
        (NoRoomAhead("not now"), "unloaded", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_a_load_that_fails_says_why(instance: Instance, error: Exception, state: str, lacks_memory: bool) -> None:
    Scripted.errors = [error]
    with pytest.raises(LoadFailed):
        await instance.load()
    assert (instance.state, instance.lacks_memory) == (state, lacks_memory)
    assert instance.last_error
    await instance.load()
    assert (instance.engine is not None, instance.lacks_memory, instance.last_error) == (True, False, None)


async def test_a_lack_of_memory_is_forgotten_when_there_may_be_some_and_other_failures_are_not(
    instance: Instance,
) -> None:
    Scripted.errors = [NoRoom("no", beside=[], unnamed="no"), LoadFailed("broken")]
    for state in ("unloaded", "failed"):
        with pytest.raises(LoadFailed):
            await instance.load()
        instance.forget_lack_of_memory()
        assert instance.state == state


@pytest.mark.parametrize(
    ("first", "second", "lines"),
    [
        (FilesUnreadable("/a is gone"), FilesUnreadable("/a is gone, 7 left"), 1),
        (OutOfResources("x", number=24), OutOfResources("y", number=24), 1),
        (OutOfResources("x", number=24), OutOfResources("x", number=12), 2),
        (FilesUnreadable("x"), OutOfResources("x", number=12), 2),
        (NoRoom("1 MB", beside=["a"], unnamed=""), NoRoom("2 MB", beside=["a"], unnamed=""), 1),
        (NoRoom("1 MB", beside=["a"], unnamed=""), NoRoom("1 MB", beside=["b"], unnamed=""), 2),
        (LoadFailed("x"), LoadFailed("x"), 2),  # it costs a process each time
    ],
)
async def test_the_same_fault_again_is_logged_once_whatever_its_words(
    instance: Instance, caplog: pytest.LogCaptureFixture, first: LoadFailed, second: LoadFailed, lines: int
) -> None:
    Scripted.errors = [first, second]
    for _ in range(2):
        with pytest.raises(LoadFailed):
            await instance.load()
    assert len([record for record in caplog.records if "not loaded" in record.getMessage()]) == lines


async def test_an_engine_that_ends_by_itself_fails_only_as_long_as_the_pause_lasts(instance: Instance) -> None:
    for deaths in range(1, TOLERATED + 1):
        engine = await instance.load()
        state = await state_after(lambda _, engine=engine: engine.ended.set_result("killed"), instance)  # type: ignore[misc]
        assert state == ("failed" if deaths == TOLERATED else "unloaded")
    with pytest.raises(ModelUnavailable) as refused:
        await instance.load()
    assert refused.value.retry_after_seconds is not None
    instance.backoff.reset()
    await instance.load()
    assert (instance.state, instance.worker_deaths, instance.restarts) == ("ready", TOLERATED, TOLERATED)


async def test_a_load_that_begins_while_an_engine_ends_waits_for_its_memory(instance: Instance, memory: Plenty) -> None:
    await instance.load()
    reserved: list[int] = []
    memory.on_reserve = reserved.append
    instance.evict("the test says so")
    instance.begin_loading()
    await instance.load()
    assert (reserved, instance.loads) == ([0], 2)


async def test_a_load_queued_for_memory_is_cancelled_with_the_last_who_waits_for_it(memory: Plenty) -> None:
    instance = Instance("m", Scripted(), since_revision=1, memory=Full())
    waiting = [asyncio.create_task(instance.load()) for _ in range(2)]
    for task, state in zip(waiting, ("loading", "unloaded"), strict=True):
        assert await state_after(lambda _, task=task: task.cancel(), instance) == state  # type: ignore[misc]
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_cancelled_load_leaves_the_failure_before_it_in_sight(instance: Instance) -> None:
    Scripted.errors = [LoadFailed("broken")]
    with pytest.raises(LoadFailed):
        await instance.load()
    Scripted.gate.clear()
    instance.begin_loading()
    await instance.unload()
    assert (instance.state, instance.last_error) == ("failed", "broken")


async def test_a_backend_that_does_not_notice_that_its_load_is_cancelled_loses_no_engine(memory: Plenty) -> None:
    closed = asyncio.Event()

    class Closing(EchoEngine):
        async def close(self) -> None:
            closed.set()

    class Deaf(Scripted):
        async def start(self, name: str, report: ReportLoading) -> Engine:
            try:
                await type(self).gate.wait()
            except asyncio.CancelledError:
                return Closing()
            raise AssertionError

    Scripted.gate.clear()
    instance = Instance("m", Deaf(), since_revision=1, memory=memory)
    instance.begin_loading()
    for _ in range(5):
        await asyncio.sleep(0)
    await instance.unload()
    assert (instance.state, closed.is_set(), memory.reserved) == ("unloaded", True, 0)


async def test_a_closed_instance_loads_no_more(instance: Instance) -> None:
    async with instance.lease():
        await instance.close()
        assert (instance.state, instance.engine) == ("closed", None)
    with pytest.raises(ModelUnavailable):
        await instance.load()
    with pytest.raises(InvalidTransition):
        instance.begin_loading()


async def test_each_transition_is_logged_once(instance: Instance, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="localapi")  # another test may have set it to INFO
    await instance.load()
    await instance.unload()
    records = [record for record in caplog.records if record.name == "localapi.runtime.instance"]
    assert len(records) == len(["loading", "ready", "draining", "unloaded"])
