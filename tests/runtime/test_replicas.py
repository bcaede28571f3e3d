"""Replicas: how many there should be, who answers, who replaces whom, and what memory allows."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from localapi.backends.engine import Engine, ReportLoading, Vitals
from localapi.backends.mlx_lm import MlxLm
from localapi.backends.options import ReplicaLimits
from localapi.errors import ManifestError, WorkerEnded
from localapi.manifest import ManifestSource, read
from localapi.runtime.instance import Instance
from localapi.runtime.memory import Footprint, expected_bytes
from localapi.runtime.memory import Memory as RealMemory
from localapi.runtime.replicas import GROW_SECONDS, Replicas, wanted
from localapi.worker.protocol import AWAITING_ROOM, Chat, Delta, Event, Finished, Loaded, Loading, Message, Request
from tests.server import save, serving, until

LIMITS = ReplicaLimits(min=2, max=4, idle=60)
LATER = GROW_SECONDS + 1


@pytest.mark.parametrize(
    ("count", "queued", "idle", "expected"),
    [
        (1, 0, 0, 2),
        (2, 0, 0, 2),
        (2, GROW_SECONDS - 1, 0, 2),
        (2, GROW_SECONDS, 0, 3),
        (4, LATER, 0, 4),
        (3, 0, 59, 3),
        (3, 0, 60, 2),
        (2, 0, 600, 2),
        (5, LATER, 0, 4),
        (3, LATER, 600, 4),
    ],
)
def test_how_many_there_should_be(count: int, queued: float, idle: float, expected: int) -> None:
    assert wanted(count, LIMITS, queued_seconds=queued, idle_seconds=idle) == expected


def test_a_number_is_min_and_max_and_min_cannot_exceed_max() -> None:
    model = MlxLm(backend="mlx-lm", path="demo", replicas=3)
    assert model.replica_limits == ReplicaLimits(min=3, max=3)
    with pytest.raises(ValidationError):
        ReplicaLimits(min=3, max=2)


class OneAtATime:
    """An engine that answers one request at a time, each when its test says so."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.loaded = Loaded()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.go = asyncio.Event()
        self.given = 0
        self.closed = False

    async def answer(self, request: Request) -> AsyncGenerator[Event, None]:
        self.given += 1
        try:
            await asyncio.wait([asyncio.create_task(self.go.wait()), self.ended], return_when="FIRST_COMPLETED")
            if self.ended.done():
                raise WorkerEnded("gone")
            yield Delta(request.id, str(self.number))
            yield Finished(request.id, 1, 1)
        finally:
            self.given -= 1

    def vitals(self) -> Vitals:
        return Vitals(unanswered=self.given, max_batch=1, memory_bytes=100)

    def end(self, reason: str) -> None:
        self.ended.set_result(reason)

    async def close(self) -> None:
        self.closed = True


class Owner:
    """Memory for so many more."""

    def __init__(self) -> None:
        self.room = 10
        self.deaths: list[str] = []
        self.engines: list[OneAtATime] = []

    def reserve_growth(self, size: int) -> bool:
        assert size == 100
        self.room -= 1
        return self.room >= 0

    def end_growth(self, size: int, *, loaded: bool) -> None:
        """Nothing to count."""

    def note_replica_ended(self, reason: str) -> None:
        self.deaths.append(reason)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        self.engines.append(OneAtATime(len(self.engines) + 1))
        return self.engines[-1]


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def replicas(owner: Owner) -> AsyncGenerator[Replicas, None]:
    first = await owner.start("m", lambda *_: None)
    replicas = Replicas("m", first, ReplicaLimits(min=1, max=3, idle=60), start=owner.start, owner=owner)
    yield replicas
    await replicas.close()
    assert all(each.closed for each in owner.engines)


async def ask(replicas: Replicas, text: str) -> str:
    chat = Chat(id=1, messages=[Message("user", text)])
    return "".join([event.text async for event in replicas.answer(chat) if isinstance(event, Delta)])


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_requests_that_are_queued_for_long_get_another_replica_which_takes_them(
    replicas: Replicas, owner: Owner
) -> None:
    requests = [asyncio.create_task(ask(replicas, f"{number}")) for number in range(3)]
    await settled()
    assert (replicas.vitals().queued, replicas.vitals().max_batch) == (2, 1)
    replicas.consider(0)
    replicas.consider(LATER)
    await settled()
    assert [engine.given for engine in owner.engines] == [1, 1]
    replicas.consider(2 * LATER)
    replicas.consider(3 * LATER)
    await settled()
    assert [engine.given for engine in owner.engines] == [1, 1, 1]
    assert (replicas.vitals().queued, replicas.vitals().max_batch, replicas.vitals().memory_bytes) == (0, 3, 300)
    for engine in owner.engines:
        engine.go.set()
    assert await asyncio.gather(*requests) == ["1", "2", "3"]


async def test_without_memory_there_are_no_more_and_it_says_so(replicas: Replicas, owner: Owner) -> None:
    owner.room = 0
    request = [asyncio.create_task(ask(replicas, f"{number}")) for number in range(2)]
    await settled()
    for now in (0, LATER, 2 * LATER):
        replicas.consider(now)
    await settled()
    assert len(replicas.replicas) == 1
    assert "memory" in (replicas.held_back or "")
    owner.engines[0].go.set()
    await asyncio.gather(*request)
    replicas.consider(3 * LATER)
    assert replicas.held_back is None


async def test_one_that_waits_for_room_on_the_cluster_says_so_and_is_given_up_when_it_is_not_needed(
    owner: Owner,
) -> None:
    async def start(name: str, report: ReportLoading) -> Engine:
        report(Loading(AWAITING_ROOM, detail="no node has 1 GPU free"))
        await asyncio.Event().wait()
        raise AssertionError

    first = OneAtATime(1)
    replicas = Replicas("m", first, ReplicaLimits(min=1, max=3), start=start, owner=owner)
    requests = [asyncio.create_task(ask(replicas, f"{number}")) for number in range(2)]
    await settled()
    for now in (0, LATER, 2 * LATER):
        replicas.consider(now)
        await settled()
    assert "1 GPU" in (replicas.held_back or "")
    first.go.set()
    await asyncio.gather(*requests)
    for now in (3 * LATER, 4 * LATER):
        replicas.consider(now)
        await settled()
    assert replicas.held_back is None
    await replicas.close()


async def test_a_replica_that_ends_by_itself_is_replaced_and_its_request_goes_to_another(
    replicas: Replicas, owner: Owner
) -> None:
    replicas.follow(ReplicaLimits(min=2, max=2))
    replicas.consider(0)
    await settled()
    request = asyncio.create_task(ask(replicas, "hello"))
    await settled()
    (busy,) = [engine for engine in owner.engines if engine.given]
    owner.engines[1].go.set()
    owner.engines[0].go.set()
    busy.go.clear()
    busy.end("killed")
    assert await request == str(3 - busy.number)
    assert (owner.deaths, replicas.ended.done()) == (["killed"], False)
    replicas.consider(1)
    await settled()
    assert [each.number for each in replicas.replicas] == [3 - busy.number, 3]


async def test_when_the_last_one_ends_all_have_ended(replicas: Replicas, owner: Owner) -> None:
    request = asyncio.create_task(ask(replicas, "hello"))
    await settled()
    owner.engines[0].end("killed")
    with pytest.raises(WorkerEnded):
        await request
    assert replicas.ended.result() == "killed"


async def test_one_that_is_idle_for_long_ends_and_fewer_by_an_edit_end_when_they_are_idle(
    replicas: Replicas, owner: Owner
) -> None:
    replicas.follow(ReplicaLimits(min=3, max=3))
    for now in (0, 1):
        replicas.consider(now)
        await settled()
    requests = [asyncio.create_task(ask(replicas, f"{number}")) for number in range(3)]
    await settled()
    replicas.follow(ReplicaLimits(min=1, max=2, idle=60))
    replicas.consider(2)
    assert [each.drains for each in replicas.replicas] == [False, False, True]
    for engine in owner.engines:
        engine.go.set()
    assert await asyncio.gather(*requests) == ["1", "2", "3"]
    replicas.consider(3)
    assert [each.number for each in replicas.replicas] == [1, 2]
    last_used = max(each.last_used for each in replicas.replicas)
    replicas.consider(last_used + 59)
    assert len(replicas.replicas) == 2
    replicas.consider(last_used + 61)
    assert [each.number for each in replicas.replicas] == [1]


async def test_a_conversation_stays_with_its_replica_unless_that_is_busy(replicas: Replicas, owner: Owner) -> None:
    replicas.follow(ReplicaLimits(min=2, max=2))
    replicas.consider(0)
    await settled()
    blocking = asyncio.create_task(ask(replicas, "other"))
    await settled()
    owner.engines[1].go.set()
    assert await ask(replicas, "hello") == "2"
    owner.engines[0].go.set()
    await blocking
    assert [await ask(replicas, "hello"), await ask(replicas, "other"), await ask(replicas, "new")] == ["2", "1", "1"]


def test_growth_is_reserved_within_the_budget_and_behind_loads_that_wait() -> None:
    memory = RealMemory()
    instance = Instance("m", MlxLm(backend="mlx-lm", path="demo"), since_revision=1, memory=memory)
    assert memory.reserve_growth(instance, 100)
    memory.follow(1000)
    memory._footprints[instance] = Footprint(400)
    assert memory.reserve_growth(instance, 500)
    assert memory.used == 900
    assert not memory.reserve_growth(instance, 200)
    memory.end_growth(instance, 500)
    assert memory.used == 400


@pytest.mark.parametrize(("room", "kept"), [(3.5, 3), (2.5, 2), (1.5, 1)])
async def test_room_for_the_least_number_of_replicas_is_kept_as_far_as_there_is_any(room: float, kept: int) -> None:
    options = MlxLm(backend="mlx-lm", path="demo", replicas=ReplicaLimits(min=3, max=4))
    each = expected_bytes(options)
    memory = RealMemory()
    memory.follow(int(room * each))
    instance = Instance("m", options, since_revision=1, memory=memory)
    await memory.reserve(instance)
    assert memory.used == kept * each
    for _ in range(kept - 1):
        assert memory.reserve_growth(instance, each)
    assert memory.used == kept * each
    assert not memory.reserve_growth(instance, each)


@pytest.mark.parametrize("entry", ["{backend: echo, replicas: 2}", "{backend: pool, of: [one], replicas: 2}"])
def test_replicas_of_what_has_no_worker_are_an_error_with_its_place(tmp_path: Path, entry: str) -> None:
    save(tmp_path / "models.yaml", f"chat:\n  one: {{backend: echo}}\n  two: {entry}\n")
    with pytest.raises(ManifestError) as caught:
        read(ManifestSource(tmp_path / "models.yaml"))
    assert [(each.line, each.key) for each in caught.value.problems] == [(3, "chat.two.replicas")]


def test_replicas_follow_the_file_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    line = "chat:\n  demo: {{backend: mlx-lm, path: demo, preload: true{}}}\n"
    save(tmp_path / "models.yaml", line.format(""))
    with serving(tmp_path) as server:
        until(lambda: server.model("demo")["state"] == "ready")
        first = server.model("demo")["place"]["pid"]
        save(tmp_path / "models.yaml", line.format(", replicas: 2"))

        def pids() -> list[int]:
            parts = server.model("demo")["place"]["parts"]
            return [each["pid"] for each in parts if each["state"] == "ready"]

        until(lambda: len(pids()) == 2)
        assert pids()[0] == first
        before = server.model("demo")["memory_bytes"]
        os.kill(first, signal.SIGKILL)
        reply = server.client().chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
        )
        assert reply.choices[0].message.content
        until(lambda: len(pids()) == 2 and first not in pids())
        model = server.model("demo")
        assert (model["state"], model["worker_deaths"], model["restarts"], model["loads"]) == ("ready", 1, 1, 1)
        assert model["memory_bytes"] > before / 2
        running = pids()
        assert server.request("POST", "/admin/models/demo/unload").json()["state"] == "unloaded"
        assert not any(psutil.pid_exists(pid) for pid in running)
