"""The memory that answers will take is estimated before they begin, and they wait where there is not enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache

from localapi.worker.llm import mlx_lm, row_maker
from localapi.worker.llm.kv_memory import STEP_TOKENS, Footprint, KVMemory, measure_footprint
from localapi.worker.llm.prefix_cache.disk_store import arrays_in
from localapi.worker.llm.prefix_cache.layers import flat
from localapi.worker.model import Host
from localapi.worker.protocol import Chat, Complete, Delta, Event, Failed, Finished, Message, Sampling
from tests.worker.llm.prefix_cache.test_cache import MODELS, model

GREEDY = Sampling(temperature=0)


def held(caches: list[Any]) -> int:
    """Bytes that caches really hold."""
    return sum(
        array.nbytes
        for cache in flat(caches)
        for array in arrays_in([cache.keys, cache.values] if getattr(cache, "keys", None) is not None else cache.state)
    )


def run_of(kind: str) -> Any:
    return lambda tokens, caches: mx.eval(model(kind)(tokens, cache=caches))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("tokens", [21, 200, 700])
def test_it_is_what_the_caches_of_every_kind_hold(kind: str, tokens: int) -> None:
    footprint = measure_footprint(make_prompt_cache(model(kind)), run_of(kind))
    caches = make_prompt_cache(model(kind))
    for _ in range(tokens // 20):
        run_of(kind)(mx.zeros((1, 20), mx.int32), caches)
        run_of(kind)(mx.zeros((1, 1), mx.int32), caches)
    real, said = held(caches), footprint.bytes(tokens // 20 * 21)
    assert 0.9 * real <= said <= 1.5 * real


def test_a_quantised_cache_is_smaller() -> None:
    plain = [KVCache()]
    small = [QuantizedKVCache(group_size=32, bits=4)]

    def fill(tokens: mx.array, caches: list[Any]) -> None:
        caches[0].update_and_fetch(mx.zeros((1, 2, tokens.shape[1], 64)), mx.zeros((1, 2, tokens.shape[1], 64)))

    assert measure_footprint(small, fill).bytes(1000) < measure_footprint(plain, fill).bytes(1000) / 4


def test_windows_stop_growing_and_states_do_not_grow() -> None:
    footprint = Footprint(fixed=1000, layers=((10.0, 512), (1.0, 1 << 40)))
    assert footprint.bytes(STEP_TOKENS) == 1000 + 11 * STEP_TOKENS
    assert footprint.bytes(1024) == 1000 + 10 * 512 + 1024
    assert footprint.tokens(footprint.bytes(1024)) == 1024
    assert footprint.tokens(999) == -1


def test_rows_are_reckoned_as_long_as_the_longest() -> None:
    memory = KVMemory(Footprint(0, ((1.0, 1 << 40),)), 4 * 1024, together=True)
    assert memory.fits(1024, 1, [256, 256, 256])
    assert not memory.fits(1280, 1, [256, 256, 256])
    assert not memory.fits(256, 2, [256, 256, 1024])
    assert memory.fits(9999, 1, [])
    assert (memory.longest(1), memory.longest(4)) == (4096, 1024)
    assert KVMemory(memory.footprint, memory.max_bytes, together=False).longest(4) == 4096


@pytest.fixture
def engine(endless_model: Path) -> mlx_lm.MlxLm:
    """With memory for two answers of a step's tokens; it talks until it is stopped."""
    options = {"path": str(endless_model), "prefix_cache_mb": 0, "speculation": "off"}
    engine = mlx_lm.load(options, Host(lambda _: None, lambda: None))
    memory = engine._rows.memory
    engine._rows.memory = KVMemory(memory.footprint, 2 * memory.footprint.bytes(STEP_TOKENS), together=True)
    return engine


def ask(id: int, **options: Any) -> Chat:  # noqa: A002  # the protocol's word
    return Chat(id=id, messages=[Message("user", "Tell me a story.")], sampling=GREEDY, **options)


def run(engine: mlx_lm.MlxLm) -> list[Event]:
    events: list[Event] = []
    while engine.busy or engine.waiting:  # on a busy machine, a short text is read on the thread
        events += engine.step()
    return events


def test_requests_that_do_not_fit_beside_the_running_ones_wait_in_order(engine: mlx_lm.MlxLm) -> None:
    for request_id in range(5):
        engine.take(ask(request_id, max_tokens=20 + request_id))
    engine.take(ask(9, max_tokens=20))
    engine.cancel(3)
    ended, running = [], set[int]()
    while engine.busy or engine.waiting:  # on a busy machine, a short text is read on the thread
        for event in engine.step():
            if isinstance(event, Delta):
                running.add(event.id)
            elif isinstance(event, Finished):
                running.remove(event.id)
                ended.append(event.id)
        assert len(running) <= 2
    assert ended == [0, 1, 2, 4, 9]


@pytest.mark.parametrize(
    ("request_", "kind", "param"),
    [
        (ask(1, max_tokens=1000), "invalid_request", "max_tokens"),
        (ask(1, max_tokens=300, n=2), "invalid_request", "max_tokens"),
        (Complete(id=1, prompt="Tell me a story. " * 300, max_tokens=1), "context_length_exceeded", "prompt"),
        (Complete(id=1, prompt="Tell me a story. " * 300), "context_length_exceeded", "prompt"),
    ],
)
def test_what_could_never_fit_is_refused_with_both_numbers(
    engine: mlx_lm.MlxLm, request_: Any, kind: str, param: str
) -> None:
    engine.take(request_)
    [failed] = run(engine)
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.param) == (kind, param)
    limit = engine._rows.memory.max_bytes / 1024 / 1024
    assert f"kv_cache_mb is {limit:.1f} MB" in failed.message


def test_an_answer_without_an_end_ends_where_the_memory_does(engine: mlx_lm.MlxLm) -> None:
    engine.take(ask(1))
    finished = run(engine)[-1]
    assert isinstance(finished, Finished)
    assert finished.prompt_tokens + finished.completion_tokens == 2 * STEP_TOKENS


@pytest.fixture
def unlimited(engine: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch) -> mlx_lm.MlxLm:
    """The same where nobody said so; an answer is reckoned with 20 tokens at first."""
    engine._rows.memory = replace(engine._rows.memory, said=False)
    monkeypatch.setattr(row_maker, "UNSAID_TOKENS", 20)
    return engine


def test_without_a_limit_a_large_max_tokens_is_neither_refused_nor_waited_for(unlimited: mlx_lm.MlxLm) -> None:
    for request_id in (1, 2):
        unlimited.take(ask(request_id, max_tokens=90_000, stop=["small"]))
    first: list[Event] = []
    while not any(isinstance(event, Finished) for event in first):
        first += unlimited.step()
    assert {event.id for event in first if isinstance(event, Delta)} == {1, 2}


def test_without_a_limit_one_request_may_take_all_that_there_is(unlimited: mlx_lm.MlxLm) -> None:
    unlimited.take(ask(1, max_tokens=90_000))
    finished = run(unlimited)[-1]
    assert isinstance(finished, Finished)
    assert finished.prompt_tokens + finished.completion_tokens == 4 * STEP_TOKENS
    unlimited.take(Complete(id=1, prompt="Tell me a story. " * 300, max_tokens=1))
    [failed] = run(unlimited)
    assert isinstance(failed, Failed)


def test_a_row_that_grows_beyond_what_was_reckoned_is_reckoned_as_it_is(unlimited: mlx_lm.MlxLm) -> None:
    unlimited.take(ask(1))
    for _ in range(STEP_TOKENS + 10):
        unlimited.step()
    unlimited.take(ask(2, max_tokens=5))
    ended = [event.id for event in run(unlimited) if isinstance(event, Finished)]
    assert ended == [1, 2]


def test_without_a_limit_it_is_a_share_of_the_machines_memory(endless_model: Path) -> None:
    host = Host(lambda _: None, lambda: None)
    engine = mlx_lm.load({"path": str(endless_model)}, host)
    assert 100 * 1024**2 < engine._rows.memory.max_bytes < 1 << 50
    engine = mlx_lm.load({"path": str(endless_model), "kv_cache_mb": 7}, host)
    assert engine._rows.memory.max_bytes == 7 * 1024**2
