"""Threads that take turns. Parts here do what the test lets them, one piece at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue

import pytest

from localapi.worker.protocol import Event, Failed, Sound, Spoken
from localapi.worker.tts.synthesis_pool import SynthesisPool

PATIENCE_SECONDS = 60


@dataclass(eq=False)
class Gated:
    """A part whose pieces end when they may."""

    id: int
    segment: int = 0
    pieces: int = 1
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_end: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    alone: list[bool] = field(default_factory=list)
    did: int = 0

    @property
    def done(self) -> bool:
        return self.did == self.pieces

    def advance(self, *, alone: bool) -> list[Event]:
        self.alone.append(alone)
        self.begun.release()
        assert self.may_end.acquire(timeout=PATIENCE_SECONDS)
        self.did += 1
        return [Sound(self.id, self.segment, b"", 8_000)]

    def wait_until_begun(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE_SECONDS)

    def finish(self, pieces: int = 1) -> None:
        self.may_end.release(pieces)


class Work:
    """SynthesisPool on some threads, and what came of them."""

    def __init__(self, threads: int) -> None:
        self.woken: SimpleQueue[None] = SimpleQueue()
        self.turns = SynthesisPool(threads, lambda: self.woken.put(None))
        self.events: list[Event] = []

    def ask(self, *parts: Gated) -> None:
        self.turns.add(parts[0].id, parts, Spoken(parts[0].id))

    def until(self, met: Callable[[list[Event]], bool]) -> list[Event]:
        """Return all events as soon as a condition is met."""
        while not met(self.events):
            while not self.turns.busy:
                self.woken.get(timeout=PATIENCE_SECONDS)
            self.events += self.turns.events()
        return self.events


def count(number: int) -> Callable[[list[Event]], bool]:
    return lambda events: len(events) >= number


@pytest.fixture
def two() -> Iterator[Work]:
    work = Work(2)
    yield work
    assert not work.turns._requests
    assert not work.turns.busy


def test_the_first_piece_of_a_request_has_all_cores_and_then_the_parts_share_them(two: Work) -> None:
    first, second, third = parts = [Gated(1, segment, pieces=2 if segment == 0 else 1) for segment in range(3)]
    two.ask(*parts)
    first.wait_until_begun()
    assert not second.begun.acquire(timeout=0.05)
    first.finish()
    first.wait_until_begun()
    second.wait_until_begun()
    second.finish()
    third.wait_until_begun()
    first.finish()
    third.finish()
    events = two.until(count(5))
    assert [getattr(event, "segment", None) for event in events] == [0, 0, 1, 2, None]
    assert (first.alone, second.alone, third.alone) == ([True, False], [False], [False])


def test_what_is_made_of_a_later_part_waits_for_the_earlier(two: Work) -> None:
    first, second = parts = [Gated(1, 0, pieces=2), Gated(1, 1)]
    two.ask(*parts)
    first.finish()
    assert len(two.until(count(1))) == 1
    second.wait_until_begun()
    second.finish()
    first.wait_until_begun()
    first.wait_until_begun()
    assert not two.turns.busy
    first.finish()
    assert [getattr(event, "segment", None) for event in two.until(count(4))] == [0, 0, 1, None]


def test_requests_take_turns() -> None:
    one = Work(1)
    many = [Gated(1, segment) for segment in range(4)]
    late = [Gated(2, segment) for segment in range(2)]
    one.ask(*many)
    many[0].wait_until_begun()
    one.ask(*late)
    for part in (*many, *late):
        part.finish()
    events = one.until(count(8))
    assert [event.id for event in events if isinstance(event, Sound)] == [1, 2, 1, 2, 1, 1]


def test_a_dropped_request_is_silent_and_its_thread_goes_on_with_the_next() -> None:
    one = Work(1)
    gone, other = Gated(1, pieces=5), Gated(2)
    one.ask(gone)
    gone.wait_until_begun()
    one.ask(other)
    one.turns.drop(1)
    gone.finish()
    other.finish()
    assert [event.id for event in one.until(count(2))] == [2, 2]
    assert gone.did == 1


def test_events_that_wait_are_dropped_with_their_request(two: Work) -> None:
    gone = Gated(1, pieces=2)
    two.ask(gone)
    gone.finish()
    two.woken.get(timeout=PATIENCE_SECONDS)
    assert two.turns.busy
    two.turns.drop(1)
    assert not two.turns.busy
    gone.finish()


def test_a_request_that_fails_ends_and_the_others_go_on(two: Work) -> None:
    class Broken(Gated):
        def advance(self, *, alone: bool) -> list[Event]:
            raise RuntimeError("no voice")

    fine = Gated(2)
    fine.finish()
    two.ask(Broken(1, 0), Gated(1, 1))
    two.ask(fine)
    events = two.until(count(3))
    [failed] = [event for event in events if event.id == 1]
    assert isinstance(failed, Failed)
    assert failed.kind == "generation_failed"
    assert "RuntimeError: no voice" in failed.message
    assert [type(event) for event in events if event.id == 2] == [Sound, Spoken]


def test_a_request_with_nothing_to_do_ends_at_once(two: Work) -> None:
    two.turns.add(1, [], Spoken(1))
    assert two.turns.events() == [Spoken(1)]
