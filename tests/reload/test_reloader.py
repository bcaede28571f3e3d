"""Registry and reloader against engines that the test opens and closes by hand: order without any timing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

import pytest
from quart import Quart

from localapi.api.admin import health
from localapi.backends.engine import Engine, InProcessEngine, ReportLoading
from localapi.backends.options import ChatOptions
from localapi.errors import LoadFailed, ManifestError, ModelNotFound, ModelUnavailable, Problem
from localapi.kinds import CHAT
from localapi.manifest import Entry, Manifest, ServerOptions
from localapi.manifest.entries import Said
from localapi.manifest.origin import Origin
from localapi.reload.diff import diff
from localapi.reload.reloader import Reloader
from localapi.runtime import by_hand
from localapi.runtime.backoff import TOLERATED
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Event, Request

pytestmark = pytest.mark.everyday


class Gate:
    """Holds loads until the test lets them go, and remembers what happened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()
        self.broken: set[str] = set()
        self.loaded: list[str] = []
        self.closed: list[str] = []


class FakeEngine(InProcessEngine):
    def __init__(self, weights: str, gate: Gate) -> None:
        super().__init__()
        self.weights = weights
        self.gate = gate

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        raise NotImplementedError
        yield

    async def close(self) -> None:
        self.gate.closed.append(self.weights)


class Fake(ChatOptions):
    gate: ClassVar[Gate]
    backend: Literal["fake"] = "fake"
    weights: str

    async def start(self, name: str, report: ReportLoading) -> Engine:
        gate = type(self).gate
        gate.waiting.set()
        await gate.open.wait()
        if self.weights == "ours to mend":
            raise KeyError(self.weights)
        if self.weights in gate.broken:
            raise LoadFailed(f"{self.weights} is broken")
        gate.loaded.append(self.weights)
        return FakeEngine(self.weights, gate)


@pytest.fixture
async def gate() -> Gate:
    Fake.gate = Gate()
    return Fake.gate


def manifest(**entries: str | dict[str, Any]) -> Manifest:
    """Entries by id: the weights, or all options."""
    server = ServerOptions()
    options = {n: Fake(**(e if isinstance(e, dict) else {"weights": e})) for n, e in entries.items()}
    said = {("chat", n, "weights"): Said("", Origin("models.yaml", None, at, 3)) for at, n in enumerate(entries, 1)}  # type: ignore[arg-type]
    return Manifest(entries={n: Entry.of(n, o, server=server) for n, o in options.items()}, said=said)


class Reading:
    """Next result for the reloader."""

    def __init__(self, first: Manifest) -> None:
        self.next: Manifest | ManifestError = first
        self.reads = 0

    def __call__(self) -> Manifest:
        self.reads += 1
        if isinstance(self.next, ManifestError):
            raise self.next
        return self.next


@asynccontextmanager
async def following(
    reading: Callable[[], Manifest], apply: Callable[[Manifest], None] = lambda _: None
) -> AsyncIterator[tuple[Registry, Reloader]]:
    registry = Registry()
    reloader = Reloader(registry, reading, apply=apply)
    await reloader.start()
    running = asyncio.create_task(reloader.run())
    try:
        yield registry, reloader
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await registry.close()


def test_a_diff_names_what_was_added_changed_updated_and_removed() -> None:
    old = manifest(kept="k", changed="a", updated={"weights": "u"}, removed="r")
    new = manifest(kept="k", changed="b", updated={"weights": "u", "aliases": ["x"]}, added="n")
    found = diff(old, new)
    assert (found.added, found.changed, found.updated, found.removed) == (
        ("added",),
        ("changed",),
        ("updated",),
        ("removed",),
    )
    assert str(found) == "+added ~changed =updated -removed"
    assert not diff(old, old)


async def test_an_entry_of_the_same_identity_keeps_its_engine(gate: Gate) -> None:
    reading = Reading(manifest(m="w"))
    async with following(reading) as (registry, reloader):
        async with registry.lease("m", CHAT) as first:
            reading.next = manifest(m={"weights": "w", "aliases": ["alias"]})
            assert (await reloader.reload()).diff.updated == ("m",)
        async with registry.lease("alias", CHAT) as second:
            assert second.engine is first.engine
    assert gate.loaded == ["w"]


async def test_a_warm_swap_loads_the_new_beside_the_old_and_lets_leases_finish(gate: Gate) -> None:
    reading = Reading(manifest(m="old"))
    async with following(reading) as (registry, reloader):
        async with registry.lease("m", CHAT) as before:
            gate.open.clear()
            gate.waiting.clear()
            reading.next = manifest(m="new")
            swap = asyncio.create_task(reloader.reload())
            await gate.waiting.wait()
            async with registry.lease("m", CHAT) as during:
                assert during.engine is before.engine
            gate.open.set()
            assert (await swap).ok
            async with registry.lease("m", CHAT) as after:
                assert after.engine is not before.engine
            assert gate.closed == []
            assert [i.leases for i in registry.retiring] == [1]
        await asyncio.gather(*registry.retiring.values())
    assert (gate.loaded, gate.closed) == (["old", "new"], ["old", "new"])


async def test_an_entry_whose_warm_swap_does_not_load_stays_alone_as_it_was(gate: Gate) -> None:
    reading = Reading(manifest(a="old", b="b"))
    async with following(reading) as (registry, reloader):
        async with registry.lease("a", CHAT) as before:
            gate.broken.add("bad")
            reading.next = manifest(a={"weights": "bad", "aliases": ["alias"]}, c="c")
            attempt = await reloader.reload()
        assert (attempt.ok, attempt.revision, attempt.not_loaded) == (True, 2, {"a": "bad is broken"})
        assert str(attempt.diff) == "+c =a -b"
        assert list(registry.entries) == ["a", "c"]
        for name in ("a", "alias"):
            async with registry.lease(name, CHAT) as after:
                assert after.engine is before.engine
        assert "bad is broken" in reloader.swaps.warnings[0]


async def test_several_entries_that_do_not_load_stay_and_the_others_are_replaced(gate: Gate) -> None:
    reading = Reading(manifest(a="a", b="b", c="c"))
    async with following(reading) as (registry, reloader):
        for name in "abc":
            await first_engine(registry, name)
        gate.broken |= {"a2", "b2"}
        reading.next = manifest(a="a2", b={"weights": "b2", "swap": "cold"}, c="c2")
        attempt = await reloader.reload()
        assert (attempt.diff.changed, set(attempt.not_loaded)) == (("c",), {"a", "b"})
        assert [(await first_engine(registry, name)).weights for name in "abc"] == ["a", "b", "c2"]


async def test_what_did_not_load_is_tried_again_by_itself(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localapi.runtime.backoff.FIRST_PAUSE_SECONDS", 0.01)
    reading = Reading(manifest(m="old"))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "m")
        gate.broken.add("new")
        reading.next = manifest(m="new")
        assert (await reloader.reload()).not_loaded
        await until(lambda: (swap := reloader.swaps.of("m")) is not None and swap.failures > 2)
        assert reloader.last_attempt
        assert reloader.last_attempt.revision == 1
        gate.broken.clear()
        await until(lambda: registry.entries["m"].identity == reading.next.entries["m"].identity)  # type: ignore[union-attr]
        assert (await first_engine(registry, "m")).weights == "new"
        assert (reloader.swaps.of("m"), reloader.swaps.warnings) == (None, [])


async def test_another_edit_does_not_try_again_what_failed_just_now(gate: Gate) -> None:
    reading = Reading(manifest(m={"weights": "old", "swap": "cold"}))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "m")
        gate.broken.add("new")
        reading.next = manifest(m={"weights": "new", "swap": "cold"})
        assert (await reloader.reload()).not_loaded
        async with registry.lease("m", CHAT) as lease:
            reading.next = manifest(m={"weights": "new", "swap": "cold"}, n="n")
            reloader.trigger()
            await until(lambda: "n" in registry.entries)
            assert await first_engine(registry, "m") is lease.engine
        assert (swap := reloader.swaps.of("m"))
        assert (swap.state, swap.failures, swap.error) == ("failed", 1, "new is broken")


async def test_what_did_not_load_is_tried_at_once_when_somebody_asks_or_mends_it(gate: Gate) -> None:
    reading = Reading(manifest(m="old"))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "m")
        gate.broken.add("bad")
        reading.next = manifest(m="bad")
        assert (await reloader.reload()).not_loaded
        assert (await reloader.reload()).not_loaded
        assert (swap := reloader.swaps.of("m"))
        assert swap.failures == 2
        reading.next = manifest(m="good")
        reloader.trigger()
        await until(lambda: registry.instance("m").engine is not None and "good" in gate.loaded)
        assert (await reloader.reload()).not_loaded == {}
        assert (await first_engine(registry, "m")).weights == "good"


async def test_a_swap_that_failed_and_is_taken_back_or_removed_is_forgotten(gate: Gate) -> None:
    reading = Reading(manifest(m="old", n="n"))
    async with following(reading) as (registry, reloader):
        for entries in (manifest(m="old", n="n"), manifest(n="n")):
            if "m" in registry.entries:
                await first_engine(registry, "m")
            gate.broken.add("bad")
            reading.next = manifest(m="bad", n="n")
            assert (await reloader.reload()).not_loaded
            reading.next = entries
            assert (await reloader.reload()).not_loaded == {}
            assert (reloader.swaps.of("m"), reloader.swaps.seconds_to_next_try) == (None, None)


async def test_an_old_model_that_unloads_meanwhile_is_still_the_one_that_answers(gate: Gate) -> None:
    reading = Reading(manifest(m="old"))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "m")
        gate.broken.add("new")
        reading.next = manifest(m="new")
        assert (await reloader.reload()).not_loaded
        await by_hand.unload(registry, "m")
        reading.next = manifest(m="new", n="n")
        assert (await reloader.reload()).not_loaded
        assert (await first_engine(registry, "m")).weights == "old"


async def test_an_alias_goes_over_to_another_entry_though_its_old_one_stays(gate: Gate) -> None:
    reading = Reading(manifest(a={"weights": "a", "aliases": ["x"]}, b="b"))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "a")
        gate.broken.add("bad")
        reading.next = manifest(a="bad", b={"weights": "b", "aliases": ["x"]})
        assert (await reloader.reload()).not_loaded
        assert (registry.resolve("x").id, registry.resolve("a").identity.options["weights"]) == ("b", "a")


async def test_an_edit_does_not_wait_for_a_load_that_takes_long(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localapi.reload.reloader.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("localapi.reload.reloader.SHORT_PATIENCE_SECONDS", 0.01)
    reading = Reading(manifest(m="old", cold={"weights": "cold", "swap": "cold"}))
    async with following(reading) as (registry, reloader):
        for name in ("m", "cold"):
            await first_engine(registry, name)
        gate.open.clear()
        reading.next = manifest(m="new", cold={"weights": "cold 2", "swap": "cold"}, n="n")
        swap = asyncio.create_task(reloader.reload())
        await until(lambda: "n" in registry.entries)
        reading.next = manifest(m="new", cold={"weights": "cold 2", "swap": "cold"}, o="o")
        reloader.trigger()
        await until(lambda: "o" in registry.entries)
        assert ((found := reloader.swaps.of("m")) and found.state, swap.done()) == ("loading", False)
        assert registry.instance("m").engine is not None
        gate.open.set()
        assert (await swap).ok
        assert [(await first_engine(registry, name)).weights for name in ("m", "cold")] == ["new", "cold 2"]
    assert gate.loaded == ["old", "cold", "new", "cold 2"]


async def test_a_cold_swap_ends_the_old_before_it_loads_the_new(gate: Gate) -> None:
    reading = Reading(manifest(m={"weights": "old", "swap": "cold"}))
    async with following(reading) as (registry, reloader):
        async with registry.lease("m", CHAT):
            reading.next = manifest(m={"weights": "new", "swap": "cold"})
            swap = asyncio.create_task(reloader.reload())
            await until(lambda: not registry.instance("m").gate.is_open)
            waiting = asyncio.create_task(first_engine(registry, "m"))
            await asyncio.sleep(0)
            assert (gate.loaded, gate.closed) == (["old"], [])
        assert (await swap).ok
        assert (await waiting).weights == "new"
        assert gate.closed == ["old"]


async def test_a_cold_swap_that_does_not_load_brings_the_old_one_back(gate: Gate) -> None:
    reading = Reading(manifest(m={"weights": "old", "swap": "cold"}))
    async with following(reading) as (registry, reloader):
        assert (await first_engine(registry, "m")).weights == "old"
        gate.broken.add("new")
        reading.next = manifest(m={"weights": "new", "swap": "cold"})
        assert (await reloader.reload()).not_loaded
        assert (await first_engine(registry, "m")).weights == "old"
    assert gate.loaded == ["old", "old"]


async def test_a_pinned_model_is_back_after_a_cold_swap_that_does_not_load(gate: Gate) -> None:
    reading = Reading(manifest(m={"weights": "old", "swap": "cold", "pin": True}))
    async with following(reading) as (registry, reloader):
        await until(lambda: registry.instance("m").state == "ready")
        gate.broken.add("new")
        reading.next = manifest(m={"weights": "new", "swap": "cold", "pin": True})
        assert (await reloader.reload()).not_loaded
        await until(lambda: registry.instance("m").state == "ready")
        assert gate.loaded == ["old", "old"]


async def test_a_model_that_is_loaded_is_not_loaded_beside_itself(gate: Gate) -> None:
    async with following(Reading(manifest(m="w"))) as (registry, _):
        await first_engine(registry, "m")
        registry.instance("m").begin_loading()
        assert registry.instance("m").state == "ready"


async def test_a_cold_swap_that_is_read_again_keeps_the_old_one_closed(gate: Gate) -> None:
    reading = Reading(manifest(m={"weights": "old", "swap": "cold"}))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "m")
        gate.open.clear()
        gate.waiting.clear()
        reading.next = manifest(m={"weights": "new", "swap": "cold"})
        swap = asyncio.create_task(reloader.reload())
        await gate.waiting.wait()
        waiting = asyncio.create_task(first_engine(registry, "m"))
        reloader.trigger()
        await until(lambda: reading.reads == 3)
        assert gate.closed == ["old"]
        gate.open.set()
        assert (await swap).ok
        assert (await waiting).weights == "new"
    assert gate.loaded == ["old", "new"]


async def test_a_cold_swap_that_waits_too_long_for_a_request_is_given_up(gate: Gate) -> None:
    server = ServerOptions(drain_seconds=0)
    first = manifest(m={"weights": "old", "swap": "cold"})
    reading = Reading(Manifest(entries=first.entries, said=first.said, server=server))
    async with following(reading) as (registry, reloader):
        async with registry.lease("m", CHAT) as lease:
            reading.next = manifest(m={"weights": "new", "swap": "cold"})
            attempt = await reloader.reload()
            assert "requests (1) did not end" in attempt.not_loaded["m"]
        assert await first_engine(registry, "m") is lease.engine


async def test_an_edit_during_a_long_swap_is_read_at_once_and_keeps_what_it_still_wants(gate: Gate) -> None:
    reading = Reading(manifest(m="old"))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "m")
        gate.open.clear()
        gate.waiting.clear()
        reading.next = manifest(m="new")
        first = asyncio.create_task(reloader.reload())
        await gate.waiting.wait()
        reading.next = manifest(m="new", other="o")
        second = asyncio.create_task(reloader.reload())
        await until(lambda: reading.reads == 3)
        gate.open.set()
        assert (await first) is (await second)
        assert list(registry.entries) == ["m", "other"]
    assert gate.loaded == ["old", "new"]


async def test_a_swap_that_is_taken_back_while_it_loads_is_given_up(gate: Gate) -> None:
    reading = Reading(manifest(m="old"))
    async with following(reading) as (registry, reloader):
        engine = await first_engine(registry, "m")
        gate.open.clear()
        gate.waiting.clear()
        reading.next = manifest(m="new")
        swap = asyncio.create_task(reloader.reload())
        await gate.waiting.wait()
        reading.next = manifest(m="old")
        assert (await reloader.reload()).ok
        assert (await swap).ok
        assert (await first_engine(registry, "m")) is engine
    assert gate.loaded == ["old"]


async def test_a_manifest_that_cannot_be_read_leaves_the_last_revision(gate: Gate) -> None:
    reading = Reading(manifest(m="w"))
    async with following(reading) as (registry, reloader):
        reading.next = ManifestError([Problem("models.yaml", "is torn", "", 3, 1)])
        attempt = await reloader.reload()
        assert (attempt.ok, attempt.revision) == (False, 1)
        assert list(registry.entries) == ["m"]
        reading.next = manifest(m="w")
        assert (await reloader.reload()).revision == 1
        reading.next = manifest(m="w", n="n")
        assert (await reloader.reload()).revision == 2


async def test_a_manifest_that_does_not_come_is_told_and_followed_again_when_it_does(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("localapi.reload.reloader.SLOW_SECONDS", 0)
    answers, reading = threading.Event(), Reading(manifest(m="w"))

    def read() -> Manifest:
        assert reading.reads == 0 or answers.wait(60)
        return reading()

    async with following(read) as (registry, reloader):
        assert (reloader.reading_since, reloader.reads_slowly) == (None, False)
        reading.next = manifest(m="w", n="w")
        reloader.trigger()
        await until(lambda: reloader.reads_slowly)
        assert reloader.reading_since is not None
        assert "Still serving revision 1" in caplog.text
        answers.set()
        await until(lambda: "n" in registry.entries)
        assert (reloader.reading_since, reloader.reads_slowly) == (None, False)


async def test_a_fault_of_ours_while_a_manifest_is_applied_does_not_end_the_following(gate: Gate) -> None:
    def apply(manifest: Manifest) -> None:
        if "bad" in manifest.entries:
            raise KeyError("bad")

    reading = Reading(manifest(m="w"))
    async with following(reading, apply) as (registry, reloader):
        reading.next = manifest(m="w", bad="w")
        attempt = await reloader.reload()
        assert "could not be applied: KeyError" in attempt.problems[0].message
        reading.next = manifest(m="w", good="w")
        assert (await reloader.reload()).ok
        assert "good" in registry.entries


async def test_who_waits_for_a_pass_is_told_that_the_server_ends(gate: Gate) -> None:
    reading = Reading(manifest(m="w"))
    async with following(reading) as (registry, reloader):
        await first_engine(registry, "m")
        gate.open.clear()
        gate.waiting.clear()
        reading.next = manifest(m="other")
        waiter = asyncio.create_task(reloader.reload())
        await gate.waiting.wait()
        late = asyncio.create_task(reloader.reload())
    for each in (waiter, late):
        with pytest.raises(ModelUnavailable, match="shutting down"):
            await each


async def test_twenty_triggers_during_a_pass_cause_one_more(gate: Gate) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    reading = Reading(manifest(m="w"))

    def slow() -> Manifest:
        if reading.reads == 1:
            loop.call_soon_threadsafe(started.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return reading()

    registry = Registry()
    reloader = Reloader(registry, slow)
    await reloader.start()
    running = asyncio.create_task(reloader.run())
    reloader.trigger()
    await started.wait()
    for _ in range(20):
        reloader.trigger()
    go_on.set()
    await reloader.reload()
    assert reading.reads == 3
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_removed_model_finishes_its_lease_and_is_not_found_any_more(gate: Gate) -> None:
    reading = Reading(manifest(m="w", n="n"))
    async with following(reading) as (registry, reloader):
        async with registry.lease("m", CHAT):
            reading.next = manifest(n="n")
            await reloader.reload()
            with pytest.raises(ModelNotFound):
                registry.resolve("m")
            assert gate.closed == []
        await asyncio.gather(*registry.retiring.values())
        assert gate.closed == ["w"]


async def test_one_load_serves_all_who_wait_and_goes_on_when_they_leave(gate: Gate) -> None:
    async with following(Reading(manifest(m="w"))) as (registry, _):
        gate.open.clear()
        waiters = [asyncio.create_task(first_engine(registry, "m")) for _ in range(5)]
        await gate.waiting.wait()
        assert registry.instance("m").state == "loading"
        for waiter in waiters[:4]:
            waiter.cancel()
        await asyncio.wait(waiters[:4])
        assert registry.instance("m").leases == 1
        gate.open.set()
        await waiters[4]
        assert gate.loaded == ["w"]


async def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again_by_the_next(gate: Gate) -> None:
    async with following(Reading(manifest(m="w"))) as (registry, _):
        gate.broken.add("w")
        gate.open.clear()
        waiters = [asyncio.create_task(first_engine(registry, "m")) for _ in range(2)]
        await gate.waiting.wait()
        gate.open.set()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(result) for result in results] == [LoadFailed, LoadFailed]
        assert registry.instance("m").state == "failed"
        gate.broken.clear()
        await first_engine(registry, "m")
        assert (registry.instance("m").state, registry.instance("m").last_error) == ("ready", None)


async def test_a_load_that_fails_in_the_server_itself_is_told_though_nobody_waits_for_it(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(Reading(manifest(m={"weights": "ours to mend", "preload": True}))) as (registry, _):
        await until(lambda: registry.instance("m").state == "failed")
        assert registry.instance("m").last_error == (
            "The server failed while loading the model (KeyError); see its log."
        )
        assert "Traceback" in caplog.text


async def test_a_load_that_begins_while_another_is_given_up_is_not_lost(gate: Gate) -> None:
    async with following(Reading(manifest(m="w"))) as (registry, _):
        gate.open.clear()
        gate.waiting.clear()
        instance = registry.instance("m")
        instance.begin_loading()
        await gate.waiting.wait()
        (first,) = (task for task in asyncio.all_tasks() if task.get_name() == "load m")
        first.add_done_callback(lambda _: instance.begin_loading())  # as a request that comes in this very moment
        await instance.unload()
        assert instance.state == "loading"
        gate.open.set()
        await instance.load()
        assert (gate.loaded, instance.state) == (["w"], "ready")
    assert gate.closed == ["w"]


async def test_an_idle_model_is_unloaded_after_its_keep_alive_and_loads_again(gate: Gate) -> None:
    async with following(Reading(manifest(m={"weights": "w", "keep_alive": 0}))) as (registry, _):
        await first_engine(registry, "m")
        await until(lambda: gate.closed == ["w"])
        assert registry.instance("m").state == "unloaded"
        await first_engine(registry, "m")
        assert gate.loaded == ["w", "w"]


async def test_a_leased_model_is_not_unloaded(gate: Gate) -> None:
    reading = Reading(manifest(m={"weights": "w", "keep_alive": 0}))
    async with following(reading) as (registry, _), registry.lease("m", CHAT):
        for _ in range(20):
            await asyncio.sleep(0)
        assert gate.closed == []


async def test_an_engine_that_ends_is_loaded_again_by_the_next_request(gate: Gate) -> None:
    async with following(Reading(manifest(m="w"))) as (registry, _):
        (await first_engine(registry, "m")).ended.set_result("its worker was killed")
        await until(lambda: registry.instance("m").worker_deaths == 1)
        assert registry.instance("m").last_error == "its worker was killed"
        assert registry.instance("m").state == "unloaded"
        await first_engine(registry, "m")
        assert gate.loaded == ["w", "w"]


async def test_engines_that_end_one_after_the_other_are_a_failure_as_long_as_the_pause_lasts(gate: Gate) -> None:
    async with following(Reading(manifest(m="w"))) as (registry, _):
        instance, states = registry.instance("m"), []
        for deaths in range(1, TOLERATED + 1):
            (await first_engine(registry, "m")).ended.set_result("its worker was killed")
            await until(lambda deaths=deaths: instance.worker_deaths == deaths)  # type: ignore[misc]
            states.append(instance.state)
        assert states == ["unloaded"] * (TOLERATED - 1) + ["failed"]
        instance.backoff.reset()  # as the end of the pause
        assert (instance.state, instance.last_error) == ("unloaded", "its worker was killed")


async def test_the_server_is_not_ready_before_a_pinned_model_has_come_back(gate: Gate) -> None:
    async with following(Reading(manifest(m={"weights": "w", "pin": True}))) as (registry, _):
        app = Quart("health")
        app.register_blueprint(health.routes(registry, lambda: False))

        async def ready() -> tuple[int, Any]:
            reply = await app.test_client().get("/health/ready")
            return reply.status_code, await reply.get_json()

        (await first_engine(registry, "m")).ended.set_result("its worker was killed")
        await until(lambda: registry.instance("m").state == "unloaded")
        assert await ready() == (503, {"status": "loading", "models": ["m"]})
        await first_engine(registry, "m")  # a request is sooner than the second after which it would come back
        assert await ready() == (200, {"status": "ready"})


async def test_preload_loads_what_an_edit_adds(gate: Gate) -> None:
    reading = Reading(manifest(m="w"))
    async with following(reading) as (registry, reloader):
        reading.next = manifest(m="w", eager={"weights": "e", "preload": True})
        await reloader.reload()
        await until(lambda: registry.instance("eager").state == "ready")
    assert gate.loaded == ["e"]


async def first_engine(registry: Registry, name: str) -> Any:
    async with registry.lease(name, CHAT) as lease:
        return lease.engine


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it is so; the test's time limit is the bound."""
    while not condition():  # noqa: ASYNC110  # many kinds of condition; nothing tells of all
        await asyncio.sleep(0)


async def test_of_very_many_models_a_message_lists_the_first_ones() -> None:
    reading = Reading(manifest(**{f"m{number:03}": "w" for number in range(100)}))
    async with following(reading) as (registry, _):
        with pytest.raises(ModelNotFound, match=r"these models: m000, .*, m029 and 70 more\.$"):
            registry.resolve("nobody")
