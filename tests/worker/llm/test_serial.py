"""One answer after the other: with a draft model, with a quantised KV cache, with caches that cannot be batched."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load as load_mlx_lm
from mlx_lm.generate import generate_step
from mlx_lm.models import llama4
from mlx_lm.models.cache import KVCache

from localapi.worker.llm import mlx_lm, serial
from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Chat, Delta, Ended, Event, Failed, Finished, Message, Prefill, Regex, Sampling
from tests.worker.llm.running import run
from tools.demo.train import train

if TYPE_CHECKING:
    from pathlib import Path

GREEDY = Sampling(temperature=0)
FRANCE = ("What is the capital of France?", "The capital of France is Paris.")
QUESTIONS = [FRANCE[0], "Count to five.", "Say hello in two scripts.", "Tell me a story."]

LLAMA = {
    "model_type": "llama4_text",
    "attention_bias": False,
    "attention_chunk_size": 512,
    "head_dim": 16,
    "hidden_size": 32,
    "interleave_moe_layer_step": 1,
    "intermediate_size": 32,
    "intermediate_size_mlp": 32,
    "max_position_embeddings": 4096,
    "num_attention_heads": 2,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 4,
    "num_key_value_heads": 1,
    "num_local_experts": 2,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10_000.0,
    "use_qk_norm": False,
}


def load(path: Path, **options: Any) -> mlx_lm.MlxLm:
    return mlx_lm.load({"path": str(path), **options}, Host(lambda _: None, lambda: None))


def ask(id: int, text: str, sampling: Sampling = GREEDY, **options: Any) -> Chat:  # noqa: A002
    return Chat(id=id, messages=[Message("user", text)], sampling=sampling, **options)


def text(events: list[Event], choice: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.choice == choice)


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished), events[-1]
    return events[-1]


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with heads as wide as quantising needs."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    train([FRANCE], folder, head_dim=32, num_hidden_layers=2)
    return folder


@pytest.fixture(scope="module")
def batch(tiny_model: Path) -> mlx_lm.MlxLm:
    return load(tiny_model, prefix_cache_mb=0)


def load_alone(path: Path, **options: Any) -> mlx_lm.MlxLm:
    """Load a model as if its caches could not be batched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlx_lm.LoadedModel, "lone_caches", "ChunkedKVCache")
        return load(path, **options)


@pytest.fixture(scope="module")
def drafted(tiny_model: Path) -> mlx_lm.MlxLm:
    """The tiny model with itself as its draft."""
    return load_alone(tiny_model, draft=str(tiny_model), max_batch=4)


@pytest.fixture(scope="module")
def badly_drafted(tiny_model: Path, untrained_model: Path) -> mlx_lm.MlxLm:
    """The tiny model with a draft model that is never right."""
    return load_alone(tiny_model, draft=str(untrained_model), max_batch=4)


@pytest.fixture
def alone(tiny_model: Path) -> mlx_lm.MlxLm:
    """The tiny model, as if its caches could not be batched."""
    return load_alone(tiny_model, max_batch=4)


@pytest.fixture(scope="module")
def chunked_model(tiny_model: Path) -> Path:
    """A Llama 4 of random numbers, with the tiny model's tokenizer: a kind whose caches mlx-lm cannot batch."""
    folder = tiny_model.with_name("chunked")
    shutil.copytree(tiny_model, folder)
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = {"model_type": "llama4", "text_config": LLAMA | {"vocab_size": vocab_size}}
    mx.random.seed(3)
    model = llama4.Model(llama4.ModelArgs.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(params=["drafted", "badly_drafted", "alone"])
def engine(request: pytest.FixtureRequest) -> mlx_lm.MlxLm:
    found: mlx_lm.MlxLm = request.getfixturevalue(request.param)
    found._batch.prefixes.clear()
    return found


@pytest.fixture(scope="module")
def endless(endless_model: Path) -> mlx_lm.MlxLm:
    """Talks until it is stopped."""
    return load_alone(endless_model, draft=str(endless_model), max_batch=4)


def test_a_queue_of_several_gets_the_answers_that_the_batch_gives(batch: mlx_lm.MlxLm, engine: mlx_lm.MlxLm) -> None:
    requests = [ask(i, question) for i, question in enumerate(QUESTIONS * 2)]
    together, queued = run(batch, *requests), run(engine, *requests)
    for id_, events in queued.items():
        assert text(events) == text(together[id_])
        assert [e for e in events if isinstance(e, Ended)] == [e for e in together[id_] if isinstance(e, Ended)]
        there = finished(together[id_])
        assert (finished(events).prompt_tokens, finished(events).completion_tokens) == (
            there.prompt_tokens,
            there.completion_tokens,
        )


def test_one_request_is_answered_at_a_time_and_the_model_says_so(engine: mlx_lm.MlxLm) -> None:
    assert not engine.loaded.batched
    assert "one after the other" in engine.loaded.notes[0]
    engine.take(ask(1, FRANCE[0]))
    engine.take(ask(2, FRANCE[0]))
    seen = []
    while engine.busy:
        seen += [event.id for event in engine.step()]
    assert seen == sorted(seen)


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 5, 7])
def test_max_tokens_ends_the_answer_with_length(engine: mlx_lm.MlxLm, max_tokens: int) -> None:
    events = run(engine, ask(1, "Tell me a story.", max_tokens=max_tokens))[1]
    assert finished(events).completion_tokens == max_tokens
    assert [event.reason for event in events if isinstance(event, Ended)] == ["length"]


def test_a_stop_string_ends_the_answer_before_it(engine: mlx_lm.MlxLm) -> None:
    assert text(run(engine, ask(1, FRANCE[0], stop=["Paris"]))[1]) == FRANCE[1].split("Paris")[0]


def test_penalties_biases_and_forms_hold_as_they_do_in_the_batch(batch: mlx_lm.MlxLm, engine: mlx_lm.MlxLm) -> None:
    penalised = Sampling(temperature=0, repetition_penalty=1.3, frequency_penalty=1.0, presence_penalty=0.5)
    requests = [
        ask(1, QUESTIONS[3], penalised, max_tokens=20),
        ask(2, FRANCE[0], form=Regex("[0-9]{5}")),
        ask(3, FRANCE[0]),
    ]
    together, queued = run(batch, *requests), run(engine, *requests)
    assert [text(events) for events in queued.values()] == [text(events) for events in together.values()]
    assert len(text(queued[2])) == 5


def test_log_probabilities_are_those_of_the_batch(batch: mlx_lm.MlxLm, engine: mlx_lm.MlxLm) -> None:
    def logprobs(engine: mlx_lm.MlxLm) -> list[tuple[bytes, float, int]]:
        events = run(engine, ask(1, FRANCE[0], top_logprobs=2))[1]
        said = [each for event in events if isinstance(event, Delta) for each in event.logprobs]
        return [(each.token, pytest.approx(each.logprob, abs=1e-3), len(each.top)) for each in said]

    assert len(logprobs(batch)) > 3
    assert logprobs(engine) == [(token, value.expected, top) for token, value, top in logprobs(batch)]


def test_several_answers_to_one_prompt_come_one_after_the_other(engine: mlx_lm.MlxLm) -> None:
    events = run(engine, ask(1, FRANCE[0], n=3))[1]
    assert [text(events, choice) for choice in range(3)] == [FRANCE[1]] * 3
    assert [event.choice for event in events if isinstance(event, Ended)] == [0, 1, 2]
    assert finished(events).cached_tokens == finished(events).prompt_tokens - 1


def test_a_seed_gives_the_same_answer_again(engine: mlx_lm.MlxLm) -> None:
    seeded = ask(1, QUESTIONS[3], Sampling(temperature=1.5, seed=5), max_tokens=20)
    first = text(run(engine, seeded)[1])
    engine._batch.prefixes.clear()
    assert text(run(engine, seeded)[1]) == first


def test_the_next_turn_computes_only_what_is_new(engine: mlx_lm.MlxLm, batch: mlx_lm.MlxLm) -> None:
    first = finished(run(engine, ask(1, FRANCE[0]))[1])
    turns = [Message("user", FRANCE[0]), Message("assistant", FRANCE[1]), Message("user", QUESTIONS[1])]
    next_turn = Chat(id=2, messages=turns, sampling=GREEDY, max_tokens=20)
    events = run(engine, next_turn)[2]
    assert finished(events).cached_tokens >= first.prompt_tokens
    assert text(events) == text(run(batch, next_turn)[2])


def test_a_cancelled_request_is_silent_wherever_it_is(endless: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial, "PREFILL_TOKENS", 64)
    endless.take(ask(1, "Tell me a story."))
    events: list[Event] = []
    while not any(isinstance(event, Delta) for event in events):
        events += endless.step()
    endless.take(ask(2, "Tell me a story. " * 60, max_tokens=3))
    endless.take(ask(3, "Count to five.", max_tokens=3))
    endless.step()
    endless.cancel(1)
    events = []
    while not any(isinstance(event, Prefill) for event in events):
        events += endless.step()
    assert {event.id for event in events} == {2}
    endless.cancel(2)
    while endless.busy:
        events += endless.step()
    assert not any(isinstance(event, Finished) and event.id != 3 for event in events)
    assert isinstance(events[-1], Finished)


def test_a_long_prompt_reports_progress(endless: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial, "PREFILL_TOKENS", 64)
    endless._batch.prefixes.clear()
    events = run(endless, ask(1, "Tell me a story. " * 60, max_tokens=1))[1]
    progress = [event for event in events if isinstance(event, Prefill)]
    assert len(progress) > 1
    assert progress[-1].done == progress[-1].total == finished(events).prompt_tokens


def test_when_the_model_fails_the_request_does_and_the_next_one_works(
    drafted: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(serial, "speculative_generate_step", lambda *_, **__: iter([1 / 0]))
        [failed] = run(drafted, ask(1, FRANCE[0], n=2))[1]
    assert isinstance(failed, Failed)
    assert failed.kind == "generation_failed"
    assert text(run(drafted, ask(2, FRANCE[0]))[2]) == FRANCE[1]


@pytest.mark.parametrize("draft", [False, True])
def test_a_quantised_cache_answers_and_is_reused(wide_model: Path, draft: bool) -> None:
    engine = load(wide_model, kv_bits=8, **({"draft": str(wide_model)} if draft else {}))
    assert not engine.loaded.batched
    assert "kv_bits" in engine.loaded.notes[0]
    assert text(run(engine, ask(1, FRANCE[0]))[1]) == FRANCE[1]
    again = run(engine, ask(2, FRANCE[0]))[2]
    assert text(again) == FRANCE[1]
    assert finished(again).cached_tokens == finished(again).prompt_tokens - 1


def test_a_model_whose_caches_cannot_be_batched_is_answered_one_by_one(chunked_model: Path) -> None:
    engine = load(chunked_model)
    assert not engine.loaded.batched
    assert "ChunkedKVCache" in engine.loaded.notes[0]
    model, tokenizer, *_ = load_mlx_lm(str(chunked_model))
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": FRANCE[0]}], add_generation_prompt=True)
    tokens = [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=20)]
    first = run(engine, ask(1, FRANCE[0], max_tokens=20))[1]
    assert text(first) == tokenizer.decode(tokens)
    again = run(engine, ask(2, FRANCE[0], max_tokens=20, n=2))[2]
    assert [text(again, choice) for choice in range(2)] == [text(first)] * 2
    assert finished(again).cached_tokens > 0


def test_options_that_do_not_fit_the_model_are_refused_in_one_line(
    tiny_model: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotLoad, match=r"kv_bits: mlx-lm cannot quantize this model's KV cache: .*Remove kv_bits"):
        load(tiny_model, kv_bits=8)
    with pytest.raises(CannotLoad, match="the draft model's vocabulary differs"):
        load(tiny_model, draft=str(wide_model))
    monkeypatch.setattr(serial, "make_prompt_cache", lambda _: [type("ArraysCache", (KVCache,), {})()])
    with pytest.raises(CannotLoad, match="the model uses ArraysCache, from which mlx-lm cannot remove"):
        load(tiny_model, draft=str(tiny_model))
