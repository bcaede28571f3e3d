"""Loads, evictions and refusals within a memory budget, with engines that are only numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from localapi.backends.engine import Engine, InProcessEngine, ReportLoading, Vitals
from localapi.backends.options import ChatOptions
from localapi.errors import LoadFailed
from localapi.kinds import CHAT
from localapi.manifest import Entry, Manifest, ServerOptions
from localapi.runtime import by_hand
from localapi.runtime.backoff import TOLERATED
from localapi.runtime.registry import Registry
from localapi.runtime.watchdog import Watchdog
from localapi.worker.protocol import Event, Request

pytestmark = pytest.mark.everyday

GB = 2**30


@dataclass
class World:
    """Memory of engines, by their numbers."""

    memory: dict[int, int] = field(default_factory=dict)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(Numbered, "world", world, raising=False)
    return world


class Loader(ChatOptions):
    """A model whose engine is a number."""

    backend: Literal["loader"] = "loader"
    pid: int
    worker_bytes = GB

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return Numbered(self.pid)


class Numbered(InProcessEngine):
    world: ClassVar[World]

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        raise NotImplementedError
        yield

    def vitals(self) -> Vitals:
        return Vitals(memory_bytes=self.world.memory.get(self.number, 0))


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
    watchdog = Watchdog(registry.all_instances, registry.memory)
    for name in ("pinned", "first", "second"):
        await by_hand.load(registry, name)
    async with registry.lease("busy", CHAT):
        world.memory = {1: 3 * GB, 2: 2 * GB, 3: 2 * GB, 4: 3 * GB}
        watchdog.check()
        assert loaded(registry) == ["pinned", "first", "second", "busy"]
        world.memory[4] = 4 * GB
        watchdog.check()
        assert loaded(registry) == ["pinned", "second", "busy"]
        world.memory[4] = 20 * GB
        watchdog.check()
        assert loaded(registry) == ["pinned", "busy"]
    await registry.close()


async def test_a_load_reckons_with_what_the_same_model_took_before(world: World) -> None:
    registry = registry_of(10 * GB, a={}, b={})
    world.memory = {1: 8 * GB, 2: GB}
    await by_hand.load(registry, "a")
    Watchdog(registry.all_instances, registry.memory).check()
    await by_hand.unload(registry, "a")
    await by_hand.load(registry, "b")
    world.memory[2] = 3 * GB
    await by_hand.load(registry, "a")
    assert loaded(registry) == ["a"]
    await registry.close()


async def test_loads_wait_in_order_and_one_that_nobody_waits_for_leaves_the_line(world: World) -> None:
    registry = registry_of(GB, a={}, b={}, c={})
    world.memory = dict.fromkeys((1, 2, 3), GB)
    async with registry.lease("a", CHAT):
        waiting = []
        for name in ("b", "c"):
            waiting.append(asyncio.create_task(by_hand.load(registry, name)))
            await until(lambda name=name: name in registry.memory.waiting)  # type: ignore[misc]
        assert registry.memory.position(registry.instance("c")) == 2
        waiting[0].cancel()
        await until(lambda: registry.memory.waiting == ["c"])
    assert (await waiting[1]).name == "c"
    assert loaded(registry) == ["c"]
    await registry.close()


async def test_a_model_without_room_is_tried_at_each_request_however_often_there_was_none(world: World) -> None:
    registry = registry_of(GB, a={}, b={})
    world.memory = dict.fromkeys((1, 2), GB)
    await by_hand.pin(registry, "a")
    for _ in range(TOLERATED + 1):
        with pytest.raises(LoadFailed, match=r"b needs about .*, and a 1.00 GB must stay"):
            async with registry.lease("b", CHAT):
                """There is no room."""
    by_hand.unpin(registry, "a")
    async with registry.lease("b", CHAT):
        assert loaded(registry) == ["b"]
    await registry.close()


async def test_a_model_to_preload_is_loaded_as_soon_as_an_edit_makes_room_for_it(world: World) -> None:
    registry = registry_of(GB, a={"preload": True}, b={"preload": True})
    world.memory = dict.fromkeys((1, 2), GB)
    for name in ("a", "b"):
        registry.instance(name).begin_loading()
        await until(lambda name=name: not registry.instance(name).is_loading)  # type: ignore[misc]
    assert (loaded(registry), len(registry.not_loaded)) == (["a"], 1)
    was = registry.snapshot.manifest
    registry.commit(Manifest(entries={"b": was.entries["b"]}, server=was.server), {})
    await until(lambda: loaded(registry) == ["b"])
    assert registry.not_loaded == []
    await registry.close()


def edit(registry: Registry, budget: int | None = None, **options: dict[str, Any]) -> None:
    """Commit a manifest of those entries, in that order; one that was there keeps its worker."""
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
        "a is to be preloaded, but not loaded: Unloaded before a request came: its 1.00 GB are needed for b. "
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
        await until(lambda: not registry.instance("b").is_loading)
        assert (registry.not_loaded[0][:20], registry.instance("a").gate.is_open) == ("b is to be preloaded", True)
    await registry.close()


async def test_a_lower_budget_gives_no_used_model_away_for_one_to_preload(world: World) -> None:
    registry = registry_of(3 * GB // 2, a=PRE, b=PRE)
    world.memory = dict.fromkeys((1, 2), GB)
    await until(lambda: loaded(registry) == ["a"] and len(registry.not_loaded) == 1)
    await used(registry, "a")
    edit(registry, 5 * GB // 4, a=PRE, b=PRE)
    await until(lambda: not registry.instance("b").is_loading)
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
