"""Texts of several requests computed together, by an encoder whose vectors are known."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from localapi.worker.model import CannotLoad
from localapi.worker.protocol import Embed, Embedded, Event, Failed, Ranked, Rerank
from localapi.worker.vectors.batches import BATCH_TEXTS, Tokens, TooLong, VectorModel, Vectors, unit

LIMIT = 40


class Letters:
    """Counts a and b; a token is a letter."""

    width = 2

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fails = False

    def read(self, text: str | list[int], pair: str | None, *, truncate: bool) -> Tokens:
        ids = [*map(ord, text), *map(ord, pair or "")] if isinstance(text, str) else text
        if len(ids) <= LIMIT:
            return Tokens(ids, [])
        if not truncate:
            raise TooLong(len(ids), LIMIT)
        return Tokens(ids[:LIMIT], [], truncated=True)

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        if self.fails:
            raise MemoryError("no memory is left")
        self.batches.append(len(batch))
        return unit(np.array([[text.ids.count(97) + 0.01, text.ids.count(98)] for text in batch], np.float32))


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def model(letters: Letters) -> VectorModel:
    model = VectorModel(letters, scores=False)
    letters.batches.clear()
    return model


def finish(model: VectorModel) -> list[Event]:
    events: list[Event] = []
    while model.busy:
        events += model.step()
    return events


def vectors(event: Event) -> list[list[float]]:
    assert isinstance(event, Embedded), event
    return [[round(number, 2) for number in np.frombuffer(each, "<f4").tolist()] for each in event.vectors]


def test_every_request_gets_its_own_vectors_in_its_order(model: VectorModel, letters: Letters) -> None:
    model.take(Embed(id=1, inputs=["b" * 9, "a", "bb"]))
    model.take(Embed(id=2, inputs=["a" * 9]))
    first, second = finish(model)
    assert vectors(first) == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    assert vectors(second) == [[1.0, 0.0]]
    assert letters.batches == [4]


def test_a_short_request_does_not_wait_for_a_long_one(model: VectorModel) -> None:
    model.take(Embed(id=1, inputs=["a"] * BATCH_TEXTS * 10))
    model.take(Embed(id=2, inputs=["b"]))
    done = [event.id for event in finish(model)]
    assert done == [2, 1]


def test_short_texts_are_not_padded_to_the_length_of_long_ones(model: VectorModel, letters: Letters) -> None:
    model.take(Embed(id=1, inputs=["a" * LIMIT] * 8 + ["bb"] * 50))
    (done,) = finish(model)
    assert vectors(done) == [[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 50
    assert letters.batches == [10, 48]


def test_a_cancelled_request_is_not_computed(model: VectorModel, letters: Letters) -> None:
    model.take(Embed(id=1, inputs=["a"] * BATCH_TEXTS * 10))
    model.step()
    model.cancel(1)
    model.cancel(7)
    assert not model.busy
    model.take(Embed(id=2, inputs=["b"]))
    assert [event.id for event in finish(model)] == [2]
    assert letters.batches[-1] == 1


def test_a_text_that_is_too_long_fails_alone_and_is_named(model: VectorModel) -> None:
    model.take(Embed(id=1, inputs=["a", "b" * 41]))
    model.take(Embed(id=2, inputs=["b"]))
    failed, done = finish(model)
    assert isinstance(failed, Failed)
    assert (failed.id, failed.kind, failed.param) == (1, "context_length_exceeded", "input[1]")
    assert "41" in failed.message
    assert vectors(done) == [[0.01, 1.0]]


def test_truncated_texts_are_named(model: VectorModel) -> None:
    model.take(Embed(id=1, inputs=["a", "b" * 41], truncate=True))
    (done,) = finish(model)
    assert isinstance(done, Embedded)
    assert (done.truncated, done.tokens) == ([1], 41)


def test_shorter_vectors_have_the_length_one(model: VectorModel) -> None:
    model.take(Embed(id=1, inputs=["ab"], dimensions=1))
    (done,) = finish(model)
    assert vectors(done) == [[1.0]]


def test_a_failure_of_the_engine_ends_only_the_requests_of_the_batch(model: VectorModel, letters: Letters) -> None:
    letters.fails = True
    model.take(Embed(id=1, inputs=["a"]))
    (failed,) = finish(model)
    assert isinstance(failed, Failed)
    assert failed.kind == "generation_failed"
    letters.fails = False
    model.take(Embed(id=2, inputs=["a"]))
    assert vectors(finish(model)[0]) == [[1.0, 0.0]]


class Meeting(Letters):
    """Computes two batches at a time, and fails if the second one does not come."""

    def __init__(self) -> None:
        super().__init__()
        self.met = threading.Barrier(1)

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        self.met.wait(60)
        return super().encode(batch)


class Concurrent:
    """A model that computes two batches at a time, and its worker's loop."""

    def __init__(self) -> None:
        self.letters = Meeting()
        self._woken = threading.Semaphore(0)
        self.model = VectorModel(self.letters, scores=False, at_once=2, wake=self._woken.release)
        self.letters.met = threading.Barrier(2)

    def results(self, batches: int) -> list[Event]:
        """Return the events until this many batches are computed."""
        events = self.model.step()
        for _ in range(batches):
            assert self._woken.acquire(timeout=60)
            events += self.model.step()
        assert not self.model.busy
        return events


def test_two_batches_are_computed_at_once() -> None:
    concurrent = Concurrent()
    concurrent.model.take(Embed(id=1, inputs=["a" * LIMIT] * 8 + ["bb"] * 50))
    (done,) = concurrent.results(2)
    assert vectors(done) == [[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 50


def test_a_request_cancelled_while_its_batches_are_computed_has_no_reply() -> None:
    concurrent = Concurrent()
    concurrent.letters.met = threading.Barrier(3)
    concurrent.model.take(Embed(id=1, inputs=["a" * LIMIT] * 8 + ["bb"] * 50))
    assert concurrent.model.step() == []
    concurrent.model.cancel(1)
    concurrent.letters.met.wait(60)
    assert concurrent.results(2) == []


def test_a_request_whose_batches_fail_at_once_fails_once() -> None:
    concurrent = Concurrent()
    concurrent.letters.fails = True
    concurrent.model.take(Embed(id=1, inputs=["a" * LIMIT] * 8 + ["bb"] * 50))
    (failed,) = concurrent.results(2)
    assert isinstance(failed, Failed)


def test_documents_are_scored_in_their_order(letters: Letters) -> None:
    model = VectorModel(letters, scores=True)
    model.take(Rerank(id=1, query="a", documents=["aaa", "bbbbbbb"]))
    (done,) = finish(model)
    assert isinstance(done, Ranked)
    assert done.scores[0] > done.scores[1]
    assert done.tokens == 12


class Unsteady(Letters):
    """Gives another vector each time."""

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        found = super().encode(batch)
        return found + 0.01 * len(self.batches)


class NotFinite(Letters):
    """Gives no numbers for a batch."""

    def encode(self, batch: Sequence[Tokens]) -> Vectors:
        return super().encode(batch) if len(batch) == 1 else np.full((len(batch), 2), np.nan, np.float32)


@pytest.mark.parametrize("encoder", [Unsteady(), NotFinite()])
def test_a_model_that_computes_wrong_vectors_is_refused(encoder: Letters) -> None:
    with pytest.raises(CannotLoad):
        VectorModel(encoder, scores=False)
