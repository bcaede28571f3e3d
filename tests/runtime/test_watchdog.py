"""What the supervisor makes of what it sees, with a clock and with processes of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.options import ChatOptions
from localapi.errors import LoadFailed
from localapi.kinds import CHAT
from localapi.manifest import Entry, Manifest, ServerOptions
from localapi.runtime.backoff import TOLERATED
from localapi.runtime.memory import Memory
from localapi.runtime.registry import Registry
from localapi.runtime.watchdog import COMPUTING_FACTOR, Supervisor
from localapi.system.process_usage import Usage
from localapi.worker.protocol import Event, Loaded, Loading, Request

STALL = 100.0
GB = 2**30


@dataclass
class World:
    """The time, and what processes have used by then."""

    now: float = 1000.0
    cpu: dict[int, float] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)

    def monotonic(self) -> float:
        return self.now

    async def usage(self, pids: Collection[int]) -> dict[int, Usage]:
        return {pid: Usage(self.memory.get(pid, 0), self.cpu.get(pid, 0.0)) for pid in pids}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr("localapi.runtime.watchdog.time", world)
    monkeypatch.setattr("localapi.runtime.watchdog.usage", world.usage)
    monkeypatch.setattr("localapi.runtime.memory.usage", world.usage)
    return world


@dataclass
class Worker:
    """As much of an instance as the supervisor judges by."""

    silent_since: float | None
    worker_pid: int = 7
    stall_seconds: float | None = STALL
    progress: Loading | None = None
    faults: list[str] = field(default_factory=list)

    def end_worker(self, fault: str) -> None:
        self.faults.append(fault)


async def watch(world: World, worker: Worker, seconds: float, *, cpu_share: float = 0.0) -> list[str]:
    """Look every second for so long, until the worker is ended."""
    supervisor = Supervisor(lambda: [worker], Memory())  # type: ignore[list-item]  # a stand-in
    for _ in range(int(seconds)):
        world.now += 1
        world.cpu[7] = world.cpu.get(7, 0.0) + cpu_share
        await supervisor.look()
        if worker.faults:
            break
    return worker.faults


async def test_a_worker_that_does_nothing_is_ended_in_time(world: World) -> None:
    worker = Worker(silent_since=world.now)
    assert await watch(world, worker, STALL - 2) == []
    assert await watch(world, worker, STALL) == ["hung: it did nothing for 100 s (stall_seconds) and was ended"]


async def test_threads_that_only_look_around_do_not_keep_a_worker_alive(world: World) -> None:
    assert await watch(world, Worker(world.now), 2 * STALL, cpu_share=0.002)


async def test_a_worker_that_computes_in_one_step_has_longer_and_not_for_ever(world: World) -> None:
    began = world.now
    assert "in one step" in (await watch(world, Worker(world.now), 10 * STALL, cpu_share=0.5))[0]
    assert world.now - began == COMPUTING_FACTOR * STALL


async def test_a_worker_that_loads_may_compute_for_ever(world: World) -> None:
    loading = Worker(world.now, progress=Loading("reading weights"))
    assert await watch(world, loading, 10 * STALL, cpu_share=0.5) == []


@pytest.mark.parametrize("worker", [Worker(None), Worker(0.0, stall_seconds=None)])
async def test_a_worker_without_work_or_without_a_limit_is_left_alone(world: World, worker: Worker) -> None:
    assert await watch(world, worker, 10 * STALL) == []


async def test_a_worker_that_computes_with_nothing_to_do_is_ended(world: World) -> None:
    began = world.now
    assert "with nothing to do" in (await watch(world, Worker(None), 10 * STALL, cpu_share=0.9))[0]
    assert STALL <= world.now - began <= 1.5 * STALL


@pytest.mark.parametrize(("stall_seconds", "cpu_share"), [(STALL, 0.2), (None, 0.9)])
async def test_a_worker_that_computes_a_little_or_without_a_limit_is_left_alone(
    world: World, stall_seconds: float | None, cpu_share: float
) -> None:
    assert await watch(world, Worker(None, stall_seconds=stall_seconds), 10 * STALL, cpu_share=cpu_share) == []


async def test_work_ends_the_time_of_a_worker_that_computes_with_nothing_to_do(world: World) -> None:
    worker = Worker(None)
    supervisor = Supervisor(lambda: [worker], Memory())  # type: ignore[list-item]  # a stand-in
    for second in range(int(10 * STALL)):
        world.now += 1
        world.cpu[7] = world.cpu.get(7, 0.0) + 1
        worker.silent_since = world.now if second % 50 == 0 else None
        await supervisor.look()
    assert worker.faults == []


class Loader(ChatOptions):
    """A model whose worker is a number."""

    backend: Literal["loader"] = "loader"
    pid: int
    worker_bytes = GB

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return Loaded_(self.pid)


class Loaded_:  # noqa: N801  # the protocol has the plain name
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.loaded = Loaded()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        raise NotImplementedError
        yield

    async def close(self) -> None:
        """Nothing to give back."""


def registry_of(budget: int, **options: dict[str, Any]) -> Registry:
    server = ServerOptions(memory_budget=budget)
    entries = {
        name: Entry.of(name, Loader(pid=pid, **more), server=server)  # type: ignore[arg-type]
        for pid, (name, more) in enumerate(options.items(), 1)
    }
    registry = Registry()
    registry.commit(Manifest(entries=entries, server=server), {})
    return registry


def loaded(registry: Registry) -> list[str]:
    return [each.name for each in registry.all_instances() if each.engine is not None]


async def test_models_that_grow_over_the_budget_make_the_idle_ones_go(world: World) -> None:
    registry = registry_of(10 * GB, pinned={"pin": True}, first={}, second={}, busy={})
    supervisor = Supervisor(registry.all_instances, registry.memory)
    for name in ("pinned", "first", "second"):
        await registry.load(name)
    async with registry.lease("busy", CHAT):
        world.memory = {1: 3 * GB, 2: 2 * GB, 3: 2 * GB, 4: 3 * GB}
        await supervisor.look()
        assert loaded(registry) == ["pinned", "first", "second", "busy"]
        world.memory[4] = 4 * GB
        await supervisor.look()
        assert loaded(registry) == ["pinned", "second", "busy"]
        world.memory[4] = 20 * GB
        await supervisor.look()
        assert loaded(registry) == ["pinned", "busy"]
    await registry.close()


async def test_a_load_reckons_with_what_the_same_model_took_before(world: World) -> None:
    registry = registry_of(10 * GB, a={}, b={})
    world.memory = {1: 8 * GB, 2: GB}
    await registry.load("a")
    await Supervisor(registry.all_instances, registry.memory).look()
    await registry.unload("a")
    await registry.load("b")
    world.memory[2] = 3 * GB
    await registry.load("a")
    assert loaded(registry) == ["a"]
    await registry.close()


async def test_loads_wait_in_order_and_one_that_nobody_waits_for_leaves_the_line(world: World) -> None:
    registry = registry_of(GB, a={}, b={}, c={})
    world.memory = dict.fromkeys((1, 2, 3), GB)
    async with registry.lease("a", CHAT):
        waiting = []
        for name in ("b", "c"):
            waiting.append(asyncio.create_task(registry.load(name)))
            await until(lambda name=name: name in registry.memory.waiting)  # type: ignore[misc]
        assert registry.memory.place(registry.instance("c")) == "1 before it; 1.00 GB of 1.00 GB are in use"
        waiting[0].cancel()
        await until(lambda: registry.memory.waiting == ["c"])
    assert (await waiting[1]).name == "c"
    assert loaded(registry) == ["c"]
    await registry.close()


async def test_a_model_without_room_is_tried_at_each_request_however_often_there_was_none(world: World) -> None:
    registry = registry_of(GB, a={}, b={})
    world.memory = dict.fromkeys((1, 2), GB)
    await registry.pin("a")
    for _ in range(TOLERATED + 1):
        with pytest.raises(LoadFailed, match=r"b needs about .*, and a 1.00 GB must stay"):
            async with registry.lease("b", CHAT):
                """There is no room."""
    registry.unpin("a")
    async with registry.lease("b", CHAT):
        assert loaded(registry) == ["b"]
    await registry.close()


async def test_a_model_to_preload_is_loaded_as_soon_as_an_edit_makes_room_for_it(world: World) -> None:
    registry = registry_of(GB, a={"preload": True}, b={"preload": True})
    world.memory = dict.fromkeys((1, 2), GB)
    for name in ("a", "b"):
        registry.instance(name).begin_loading()
        await until(lambda name=name: not registry.instance(name).loads_now)  # type: ignore[misc]
    assert (loaded(registry), len(registry.not_loaded)) == (["a"], 1)
    assert registry.snapshot is not None
    was = registry.snapshot.manifest
    registry.commit(Manifest(entries={"b": was.entries["b"]}, server=was.server), {})
    await until(lambda: loaded(registry) == ["b"])
    assert registry.not_loaded == []
    await registry.close()


def edit(registry: Registry, budget: int | None = None, **options: dict[str, Any]) -> None:
    """Commit a manifest of those entries, in that order; one that was there keeps its worker."""
    assert registry.snapshot is not None
    was = registry.snapshot.manifest
    server = was.server if budget is None else ServerOptions(memory_budget=budget)
    kept = {each.id: each.options.pid for each in was.entries.values() if isinstance(each.options, Loader)}
    pids = {name: kept.get(name, len(kept) + at) for at, name in enumerate(options, 1)}
    entries = {n: Entry.of(n, Loader(pid=pids[n], **more), server=server) for n, more in options.items()}  # type: ignore[arg-type]
    registry.commit(Manifest(entries=entries, server=server), {})


PRE: dict[str, Any] = {"preload": True}
PIN: dict[str, Any] = {"pin": True}


async def used(registry: Registry, name: str) -> None:
    """Have a request come and go."""
    async with registry.lease(name, CHAT):
        """It is answered."""


async def test_an_edit_that_pins_a_model_takes_the_place_of_a_preloaded_one_and_says_so(world: World) -> None:
    registry = registry_of(GB, a=PRE, b={})
    world.memory = dict.fromkeys((1, 2), GB)
    await until(lambda: loaded(registry) == ["a"])
    edit(registry, a=PRE, b=PIN)
    await until(lambda: loaded(registry) == ["b"])
    assert registry.not_loaded == [
        "a is to be preloaded, and not in memory: Unloaded before a request came: its 1.00 GB are needed for b. "
        "Its next request loads it again."
    ]
    edit(registry, 2 * GB, a=PRE, b=PIN)
    await until(lambda: loaded(registry) == ["a", "b"])
    assert registry.not_loaded == []
    await registry.close()


async def test_an_edit_that_preloads_a_model_disturbs_no_busy_one(world: World) -> None:
    registry = registry_of(GB, a={}, b={})
    world.memory = dict.fromkeys((1, 2), GB)
    async with registry.lease("a", CHAT):
        edit(registry, a={}, b=PRE)
        await until(lambda: not registry.instance("b").loads_now)
        assert (registry.not_loaded[0][:20], registry.instance("a").held) == ("b is to be preloaded", False)
    await registry.close()


async def test_a_lower_budget_gives_no_used_model_away_for_one_to_preload(world: World) -> None:
    registry = registry_of(3 * GB // 2, a=PRE, b=PRE)
    world.memory = dict.fromkeys((1, 2), GB)
    await until(lambda: loaded(registry) == ["a"] and len(registry.not_loaded) == 1)
    await used(registry, "a")
    edit(registry, 5 * GB // 4, a=PRE, b=PRE)
    await until(lambda: not registry.instance("b").loads_now)
    assert loaded(registry) == ["a"]
    await registry.close()


async def test_a_load_that_nobody_waits_for_lets_requests_pass(world: World) -> None:
    registry = registry_of(2 * GB, old={}, small={}, pre={})
    world.memory = {1: GB, 2: GB, 3: GB}
    async with registry.lease("old", CHAT):
        edit(registry, small={}, pre=PRE, more=PRE)  # `old` retires when its request has ended
        await until(lambda: loaded(registry) == ["pre", "old"])
        await until(lambda: registry.memory.waiting == ["more"])
        asking = asyncio.create_task(used(registry, "small"))
        await until(lambda: len(registry.memory.waiting) == 2)
        assert registry.memory.waiting == ["small", "more"]
        await asking
    await until(lambda: not registry.memory.waiting)
    await registry.close()


async def test_what_an_edit_renames_keeps_its_rank_among_those_to_preload(world: World) -> None:
    registry = registry_of(GB, first=PRE, second=PRE)
    world.memory = dict.fromkeys((1, 2, 3), GB)
    await until(lambda: loaded(registry) == ["first"] and len(registry.not_loaded) == 1)
    edit(registry, renamed=PRE, second=PRE)
    await until(lambda: loaded(registry) == ["renamed"] and len(registry.not_loaded) == 1)
    await registry.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's time limit is the bound."""
    while not condition():  # noqa: ASYNC110  # nothing tells of it
        await asyncio.sleep(0)
