"""One model over several processes: what they answer together is what one process answers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from localapi.backends.sharded_engine import ShardedEngine, start_ranks
from localapi.backends.worker_engine import WorkerSetup
from localapi.errors import WorkerEnded
from localapi.runtime.watchdog import judge
from localapi.worker.llm import mlx_lm
from localapi.worker.model import Host
from localapi.worker.protocol import (
    Chat,
    Complete,
    Delta,
    Event,
    Finished,
    JsonSchema,
    Message,
    Prefill,
    Request,
    Sampling,
    ToolArguments,
    join,
)
from tests import random_model
from tests.conftest import Made

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEDY = Sampling(temperature=0)
SYSTEM = "You are an assistant that knows this: " + "one two three four five six seven eight nine ten " * 8
OPTIONS = {"max_batch": 8, "prefix_cache_mb": 1}  # two of these conversations: all ranks must evict the same ones


@pytest.fixture(scope="module")
def model(made: Made) -> Path:
    return made("random-qwen2", random_model.make)


@pytest.fixture(scope="module")
def alone(model: Path) -> mlx_lm.MlxLm:
    """The same model in one process: this one."""
    engine = mlx_lm.load({"path": str(model), "cpu_weights": "stored", **OPTIONS}, Host(lambda _: None, lambda: None))
    assert isinstance(engine, mlx_lm.MlxLm)
    return engine


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        (2, "tensor"),
        pytest.param((3, "tensor"), marks=pytest.mark.long),
        pytest.param((2, "pipeline"), marks=pytest.mark.long),
        pytest.param((3, "pipeline"), marks=pytest.mark.long),
    ],
    ids=str,
)
async def ranks(request: pytest.FixtureRequest, model: Path) -> AsyncIterator[ShardedEngine]:
    count, split = request.param
    options = {"path": str(model), "split": split, **OPTIONS}
    setup = WorkerSetup(writes_tokens=True)
    engine = await start_ranks("m", "mlx-lm", options, count, setup, report=lambda *_: None)
    yield engine
    await engine.close()


def conversation(id: int, text: str, sampling: Sampling = GREEDY, **options: Any) -> Chat:  # noqa: A002
    messages = [Message("system", SYSTEM), Message("user", text)]
    return Chat(id=id, messages=messages, sampling=sampling, **{"max_tokens": 12, **options})


def answers_alone(engine: mlx_lm.MlxLm, requests: Sequence[Request]) -> dict[int, list[Event]]:
    events: dict[int, list[Event]] = {}
    for request in requests:
        engine.take(request)
        while engine.busy:
            for event in engine.step():
                events.setdefault(event.id, []).append(event)
    return events


async def answer(engine: ShardedEngine, request: Request) -> list[Event]:
    return [event async for event in engine.answer(request)]


def compact(events: Sequence[Event]) -> list[object]:
    """Return events as a client sees them: each answer in one piece, log probabilities to a few digits."""
    found: dict[object, Event] = {}
    for event in events:
        if isinstance(event, Prefill):  # told only if it takes several steps
            continue
        key = (type(event), getattr(event, "choice", 0), getattr(event, "reasoning", None))
        if isinstance(event, Delta | ToolArguments) and key in found:
            join(found[key], event)
        else:
            found[key if isinstance(event, Delta | ToolArguments) else len(found)] = event
    return [
        _rounded(event) for event in sorted(found.values(), key=lambda e: (getattr(e, "choice", 99), repr(type(e))))
    ]


def _rounded(event: Event) -> object:
    if isinstance(event, Finished):
        return ("finished", event.prompt_tokens, event.completion_tokens)
    if not isinstance(event, Delta):
        return event
    tops = [(each.token, round(each.logprob, 3), {t.token for t in each.top}) for each in event.logprobs]
    return (event.choice, event.text, tops)


SCHEMA = '{"type": "object", "properties": {"age": {"type": "integer"}, "name": {"enum": ["Ann", "Bob"]}}, ' + (
    '"required": ["age", "name"], "additionalProperties": false}'
)


async def test_each_kind_of_request_gets_the_tokens_of_one_process(ranks: ShardedEngine, alone: mlx_lm.MlxLm) -> None:
    warm = Sampling(temperature=0.9, top_p=0.95, seed=7)
    requests: list[Request] = [
        conversation(1, "Greedy."),
        conversation(2, "Seeded.", warm),
        conversation(3, "Penalised.", Sampling(temperature=0, frequency_penalty=0.5, repetition_penalty=1.1)),
        conversation(4, "Form.", form=JsonSchema(SCHEMA, strict=True), max_tokens=30),
        conversation(5, "Log probabilities.", top_logprobs=3),
        conversation(6, "Three answers.", warm, n=3),
        Complete(id=7, prompt="A text that goes on", sampling=GREEDY, max_tokens=12, stop=["zzz", "e"]),
    ]
    expected = answers_alone(alone, requests)
    answers = await asyncio.gather(*(answer(ranks, request) for request in requests))
    for request, events in zip(requests, answers, strict=True):
        assert compact(events) == compact(expected[request.id]), request.id


async def test_requests_that_join_at_different_times_get_what_they_would_get_alone(
    ranks: ShardedEngine, alone: mlx_lm.MlxLm
) -> None:
    requests: list[Request] = [
        conversation(11, "One.", max_tokens=30),
        conversation(12, "Two, which is longer than one and than three.", Sampling(temperature=1.0, seed=3)),
        conversation(13, "Three.", Sampling(temperature=0.7, seed=5), form=JsonSchema(SCHEMA, strict=True)),
        conversation(14, "Four.", Sampling(temperature=0.8, top_k=20, seed=9), n=2, max_tokens=20),
    ]
    expected = answers_alone(alone, requests)
    begun = asyncio.Event()

    async def first() -> list[Event]:
        events = []
        async for event in ranks.answer(requests[0]):
            events.append(event)
            begun.set()
        return events

    running = asyncio.create_task(first())
    await begun.wait()
    others = await asyncio.gather(*(answer(ranks, request) for request in requests[1:]))
    for request, events in zip(requests, [await running, *others], strict=True):
        assert compact(events) == compact(expected[request.id]), request.id


async def test_a_prompt_that_begins_like_an_earlier_one_computes_only_the_rest(ranks: ShardedEngine) -> None:
    first = await answer(ranks, conversation(21, "Hello."))
    again = await answer(ranks, conversation(22, "Hello there."))
    assert isinstance(first[-1], Finished)
    assert isinstance(again[-1], Finished)
    assert again[-1].cached_tokens > 60


async def test_a_client_that_leaves_does_not_disturb_the_others(ranks: ShardedEngine, alone: mlx_lm.MlxLm) -> None:
    kept = conversation(31, "Stay.", max_tokens=30)
    expected = answers_alone(alone, [kept])
    leaver = ranks.answer(conversation(32, "Go.", Sampling(temperature=1.0, seed=1), max_tokens=500))
    await anext(leaver)
    running = asyncio.create_task(answer(ranks, kept))
    await anext(leaver)
    await leaver.aclose()
    assert compact(await running) == compact(expected[31])
    assert compact(await answer(ranks, kept)) == compact(expected[31])


async def test_all_ranks_are_counted(ranks: ShardedEngine) -> None:
    vitals = ranks.vitals()
    assert [each.state for each in vitals.ranks] == ["ready"] * len(vitals.ranks)
    assert len({each.pid for each in vitals.ranks}) == len(vitals.ranks)
    assert vitals.memory_bytes == sum(each.memory_bytes or 0 for each in vitals.ranks)


async def test_a_rank_that_stops_in_the_middle_of_an_answer_ends_all_of_them(ranks: ShardedEngine) -> None:
    """Last: none of them is left."""
    pids = [each.pid or 0 for each in ranks.vitals().ranks]
    running = asyncio.create_task(answer(ranks, conversation(41, "Go on.", max_tokens=1500)))
    os.kill(pids[-1], signal.SIGSTOP)
    await asyncio.sleep(0)  # the request is sent
    vitals = ranks.vitals()
    assert vitals.silent_since is not None
    record, _ = judge(None, vitals, 5, vitals.silent_since)
    computed = replace(vitals, cpu_seconds=(vitals.cpu_seconds or 0) + 5)  # as ranks do while they wait
    _, fault = judge(record, computed, 5, vitals.silent_since + 5)
    assert fault is not None
    ranks.end(fault)
    with pytest.raises(WorkerEnded):
        await running
    assert "hung" in await ranks.ended
    await ranks.close()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
