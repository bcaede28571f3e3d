"""Tokens that a grammar forces, computed at once: what a client sees is what single tokens give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localapi.backends.model_path import DEMO_FOLDER
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
    Regex,
    Sampling,
)
from tests.worker.llm.running import run
from tests.worker.llm.speculation.test_decode_step import AnyWidth

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=0.8, top_p=0.9, seed=4)
SCHEMA = JsonSchema(
    json.dumps(
        {
            "type": "object",
            "properties": {
                "description": {"enum": ["a fixed text of several tokens", "another text"]},
                "population": {"type": "integer", "maximum": 99, "minimum": 10},
                "remarks": {"const": "nothing \"else\" to say: 'naïve' 你好"},
            },
            "required": ["description", "population", "remarks"],
            "additionalProperties": False,
        }
    ),
    True,
)
FIXED = Regex("The answer is: [a-c]{3}, and this part is always the same\\. [0-9]")


def load(**options: Any) -> mlx_lm.MlxLm:
    return mlx_lm.load({"path": str(DEMO_FOLDER), "max_batch": 4, **options}, Host(lambda _: None, lambda: None))


@pytest.fixture(scope="module")
def single() -> mlx_lm.MlxLm:
    return load(speculation="off")


@pytest.fixture(scope="module")
def several() -> mlx_lm.MlxLm:
    engine = load()
    assert engine._batch.speculation is not None
    engine._batch.speculation.costs = AnyWidth()
    return engine


def requests() -> list[Chat | Complete]:
    def chat(id: int, sampling: Sampling = GREEDY, **options: Any) -> Chat:  # noqa: A002
        return Chat(id=id, messages=[Message("user", "Tell me a story.")], sampling=sampling, **options)

    return [
        chat(1, form=SCHEMA, max_tokens=200),
        chat(2, max_tokens=30),
        chat(3, WARM, form=SCHEMA, max_tokens=200),
        chat(4, form=FIXED, max_tokens=12),
        chat(5, form=FIXED, stop=["part is al"]),
        Complete(id=6, prompt="Once", sampling=GREEDY, form=FIXED, stop=["same"]),
        chat(7, WARM, form=FIXED, top_logprobs=2, n=2),
        chat(8, Sampling(temperature=0, frequency_penalty=1.0, repetition_penalty=1.3), form=SCHEMA, max_tokens=60),
    ]


def seen(events: list[Event]) -> dict[str, Any]:
    """Return what a client sees, apart from how it is cut into pieces."""
    deltas = [event for event in events if isinstance(event, Delta)]
    logprobs = [(delta.choice, each) for delta in deltas for each in delta.logprobs]
    return {
        "text": {n: "".join(delta.text for delta in deltas if delta.choice == n) for n in range(2)},
        "tokens": [(n, each.token, [top.token for top in each.top[:1]]) for n, each in sorted(logprobs, key=_choice)],
        "ends": [event for event in events if not isinstance(event, Delta)],
    }


def _choice(pair: tuple[int, Any]) -> int:
    return pair[0]


@pytest.mark.parametrize("asked", [slice(None), slice(1), slice(4, 5)], ids=["together", "alone", "alone with stop"])
def test_clients_see_the_answers_of_single_tokens(single: mlx_lm.MlxLm, several: mlx_lm.MlxLm, asked: slice) -> None:
    for engine in (single, several):
        run(engine, *requests()[asked])  # compiles the grammars: otherwise some requests would join later
        engine._batch.prefixes.clear()
    expected, found = run(single, *requests()[asked]), run(several, *requests()[asked])
    for id_, events in expected.items():
        assert sorted_ends(seen(found[id_])) == sorted_ends(seen(events)), id_
    told = several.speculated
    assert told is not None
    assert told.forced > 20
    assert single.speculated is None


def sorted_ends(seen: dict[str, Any]) -> dict[str, Any]:
    """Answers to one request may end in another order."""
    return seen | {"ends": sorted(map(repr, seen["ends"]))}


def test_requests_are_answered_together_with_a_draft_model(single: mlx_lm.MlxLm) -> None:
    drafted = load(draft=str(DEMO_FOLDER), prefix_cache_mb=0)
    assert drafted._batch.speculation is not None
    drafted._batch.speculation.costs = AnyWidth()
    assert drafted.loaded.batched
    single._batch.prefixes.clear()
    expected, found = run(single, *requests()[:4]), run(drafted, *requests()[:4])
    for id_, events in expected.items():
        assert sorted_ends(seen(found[id_])) == sorted_ends(seen(events)), id_
    assert drafted.speculated is not None
    assert drafted.speculated.accepted > 20


def test_a_forced_answer_takes_fewer_steps_than_it_has_tokens(several: mlx_lm.MlxLm) -> None:
    several.take(requests()[0])
    steps, events = 0, []
    while several.busy:
        events += several.step()
        steps += 1
    text = "".join(event.text for event in events if isinstance(event, Delta))
    assert json.loads(text)["remarks"].startswith("nothing")
    assert isinstance(events[-1], Finished)
    assert steps < events[-1].completion_tokens / 2


def test_a_request_that_is_cancelled_inside_a_jump_is_silent_and_the_next_one_is_right(
    single: mlx_lm.MlxLm, several: mlx_lm.MlxLm
) -> None:
    several.take(requests()[0])
    events: list[Event] = []
    while not any(isinstance(event, Delta) for event in events):
        events = several.step()
    several.cancel(1)
    while several.busy:
        assert not several.step()
    [expected, *_] = run(single, *requests()[3:4]).values()
    [found, *_] = run(several, *requests()[3:4]).values()
    assert seen(found)["text"] == seen(expected)["text"]
