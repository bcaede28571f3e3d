"""The engine on a real model: requests in one batch, each as if it were alone."""

from __future__ import annotations

import gc
import random
import re
import threading
import weakref
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx_lm import load as load_mlx_lm
from mlx_lm import stream_generate
from mlx_lm.models.cache import BatchKVCache, KVCache

from localapi.worker.llm import mlx_lm
from localapi.worker.llm.constrained.grammar import Constraint, GrammarCompiler, GrammarStuck
from localapi.worker.llm.decode_step import DecodeStep
from localapi.worker.llm.output.stop_strings import AnswerText
from localapi.worker.model import Host
from localapi.worker.protocol import (
    Chat,
    Complete,
    Delta,
    Ended,
    Event,
    Failed,
    Finished,
    JsonSchema,
    Message,
    Prefill,
    Regex,
    Sampling,
)
from tests.conftest import Draws
from tests.worker.llm.running import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GREEDY = Sampling(temperature=0)
FRANCE = ("What is the capital of France?", "The capital of France is Paris.")
SCRIPTS = ("Say hello in two scripts.", "你好！ Привет! 👋🏽")  # noqa: RUF001


def load(path: Path, **options: Any) -> mlx_lm.MlxLm:
    return mlx_lm.load({"path": str(path), **options}, Host(lambda _: None, lambda: None))


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> mlx_lm.MlxLm:
    """Answers DIALOGUES word for word."""
    return load(tiny_model, max_batch=4, prefix_cache_mb=0)


@pytest.fixture(scope="module")
def endless(endless_model: Path) -> mlx_lm.MlxLm:
    """Talks until it is stopped."""
    return load(endless_model, max_batch=4, prefix_cache_mb=0, max_stall_ms=10)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(tiny: mlx_lm.MlxLm, endless: mlx_lm.MlxLm) -> Any:
    yield
    for engine in (tiny, endless):
        assert not engine.busy
        assert not engine._batch._rows
        assert not engine._batch._decoding
        assert not engine._batch._leaving
        assert not engine._batch._ended
        assert not engine._batch._reporting


def ask(id: int, text: str, sampling: Sampling = GREEDY, **options: Any) -> Chat:  # noqa: A002
    return Chat(id=id, messages=[Message("user", text)], sampling=sampling, **options)


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def end(events: list[Event]) -> Finished | Failed:
    assert isinstance(events[-1], Finished | Failed)
    return events[-1]


def reason(events: list[Event]) -> str:
    assert isinstance(events[-1], Finished)
    [ended] = [event for event in events if isinstance(event, Ended)]
    return ended.reason


def failure(events: list[Event]) -> Failed:
    assert isinstance(events[-1], Failed)
    return events[-1]


def step_until(engine: mlx_lm.MlxLm, met: Callable[[list[Event]], bool]) -> list[Event]:
    events: list[Event] = []
    while not met(events):
        assert engine.busy or engine.waiting  # on a busy machine, a short text may be read on the thread
        events += engine.step()
    return events


def cancel(engine: mlx_lm.MlxLm, *ids: int) -> None:
    for id_ in ids:
        engine.cancel(id_)
    while engine.busy or engine.waiting:  # on a busy machine, a short text is read on the thread
        assert not {event.id for event in engine.step()} & set(ids)


@pytest.mark.parametrize(("question", "answer"), [FRANCE, SCRIPTS])
def test_the_model_answers_as_it_was_trained(tiny: mlx_lm.MlxLm, question: str, answer: str) -> None:
    events = run(tiny, ask(1, question))[1]
    assert text(events) == answer
    assert reason(events) == "stop"


def test_usage_counts_the_prompt_and_every_generated_token_with_the_stop_token(
    tiny: mlx_lm.MlxLm, tiny_model: Path
) -> None:
    model, tokenizer, *_ = load_mlx_lm(str(tiny_model))
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": FRANCE[0]}], add_generation_prompt=True)
    *_, last = stream_generate(model, tokenizer, prompt)
    assert end(run(tiny, ask(1, FRANCE[0]))[1]) == Finished(1, len(prompt), last.generation_tokens)


def test_an_answer_goes_on_as_before_if_company_comes_and_leaves(endless: mlx_lm.MlxLm) -> None:
    def caches() -> set[type]:
        return {type(cache) for cache in endless._batch._generator._generation_batch.prompt_cache}

    alone = text(run(endless, ask(1, "Hello", max_tokens=40))[1])
    endless.take(ask(1, "Hello", max_tokens=40))
    events = step_until(endless, lambda events: sum(isinstance(event, Delta) for event in events) > 5)
    assert caches() == {KVCache}
    endless.take(ask(2, "Tell me", max_tokens=8, top_logprobs=2))
    events += step_until(endless, lambda events: any(isinstance(event, Delta) and event.id == 2 for event in events))
    assert caches() == {BatchKVCache}
    while endless.busy:
        events += endless.step()

    assert text([event for event in events if event.id == 1]) == alone
    reported = [event.logprobs for event in events if isinstance(event, Delta)]
    assert sum(map(len, reported)) == 8
    assert text([event for event in events if event.id == 2]) == text(run(endless, ask(3, "Tell me", max_tokens=8))[3])


def test_many_requests_get_the_answers_that_they_would_get_alone(tiny: mlx_lm.MlxLm) -> None:
    questions = [FRANCE[0], "Count to five.", SCRIPTS[0], "Tell me a story."] * 3
    alone = [text(run(tiny, ask(1, question))[1]) for question in questions]
    together = run(tiny, *(ask(i, question) for i, question in enumerate(questions)))
    assert [text(events) for events in together.values()] == alone


def test_requests_join_and_leave_a_running_batch(endless: mlx_lm.MlxLm) -> None:
    endless.take(ask(1, "Tell me a story.", max_tokens=60))
    events = step_until(endless, bool)
    for request_id in range(2, 6):
        endless.take(ask(request_id, "Count to five.", max_tokens=5))
    events += step_until(endless, lambda events: sum(isinstance(event, Finished) for event in events) == 4)
    assert {event.id for event in events if isinstance(event, Finished)} == {2, 3, 4, 5}
    cancel(endless, 1)


def test_no_more_requests_than_max_batch_are_answered_at_once(endless: mlx_lm.MlxLm) -> None:
    for request_id in range(10):
        endless.take(ask(request_id, "Tell me a story.", max_tokens=10))
    while endless.busy:
        assert len({event.id for event in endless.step() if isinstance(event, Delta)}) <= 4
        assert len(endless._batch._rows) <= 4


def test_max_tokens_ends_the_answer_with_length(endless: mlx_lm.MlxLm) -> None:
    events = run(endless, ask(1, "Tell me a story.", max_tokens=7))[1]
    finished = end(events)
    assert isinstance(finished, Finished)
    assert (reason(events), finished.completion_tokens) == ("length", 7)


def test_an_answer_ends_where_the_context_does(endless_model: Path) -> None:
    engine = load(endless_model, context_length=64)
    for asked in (None, 1_000_000):
        events = run(engine, ask(1, "Tell me a story.", max_tokens=asked))[1]
        finished = end(events)
        assert isinstance(finished, Finished)
        assert reason(events) == "length"
        assert finished.prompt_tokens + finished.completion_tokens == 64


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(tiny_model: Path) -> None:
    engine = load(tiny_model, context_length=16)
    failed = failure(run(engine, ask(1, "Tell me a story. " * 20))[1])
    assert failed.kind == "context_length_exceeded"
    assert failed.param == "messages"
    assert "tiny's context is 16 tokens" in failed.message


@pytest.mark.parametrize("stop", ["Paris", "l of F", " ", ".", "e"])
def test_a_stop_string_ends_the_answer_before_it(tiny: mlx_lm.MlxLm, stop: str) -> None:
    events = run(tiny, ask(1, FRANCE[0], stop=[stop]))[1]
    assert text(events) == FRANCE[1].split(stop)[0]
    assert reason(events) == "stop"


def test_what_only_begins_like_a_stop_string_is_not_lost(tiny: mlx_lm.MlxLm) -> None:
    assert text(run(tiny, ask(1, FRANCE[0], stop=["Paris. And"]))[1]) == FRANCE[1]


def test_a_seed_gives_the_same_answer_alone_and_in_company(endless: mlx_lm.MlxLm) -> None:
    seeded = ask(1, "Tell me a story.", Sampling(temperature=1.5, seed=-5), max_tokens=40)
    others = [ask(i, "Count to five.", Sampling(temperature=1.0 + i / 10), max_tokens=9 * i) for i in (2, 3)]
    alone = text(run(endless, seeded)[1])
    assert text(run(endless, others[0], seeded, *others[1:], ask(4, "Say hello.", max_tokens=20))[1]) == alone
    assert text(run(endless, ask(1, "Tell me a story.", Sampling(1.5, seed=-6), max_tokens=40))[1]) != alone


def test_a_cancelled_request_is_silent_wherever_it_is(endless: mlx_lm.MlxLm) -> None:
    long_prompt = "Tell me a story. " * 900
    endless.take(ask(1, "Tell me a story."))
    step_until(endless, lambda events: any(isinstance(event, Delta) for event in events))
    endless.take(ask(2, long_prompt))
    for request_id in range(3, 9):
        endless.take(ask(request_id, "Count to five."))
    step_until(endless, lambda events: any(isinstance(event, Prefill) for event in events))
    endless.take(ask(9, "Not even looked at."))
    for gone in (9, 8, 2, 1, 3):  # arrived, waiting, prefilling, decoding
        endless.cancel(gone)
        assert gone not in {event.id for event in endless.step()}
    cancel(endless, *range(10))


def test_a_long_prompt_reports_progress_and_lets_others_talk(endless: mlx_lm.MlxLm) -> None:
    endless.take(ask(1, "Tell me a story."))
    step_until(endless, lambda events: any(isinstance(event, Delta) for event in events))
    endless.take(ask(2, "Tell me a story. " * 300, max_tokens=1))
    events = step_until(endless, lambda events: any(isinstance(event, Finished) for event in events))
    progress = [event for event in events if isinstance(event, Prefill)]
    assert len(progress) > 3
    assert [event.done for event in progress] == sorted({event.done for event in progress})
    assert progress[-1].done == progress[-1].total
    assert sum(isinstance(event, Delta) and event.id == 1 for event in events) > 3
    cancel(endless, 1)


def test_a_long_text_is_tokenized_while_others_begin_and_talk(endless_model: Path) -> None:
    read = threading.Event()
    engine = mlx_lm.load({"path": str(endless_model), "context_length": 100_000}, Host(lambda _: None, read.set))
    engine.take(ask(1, "Tell me a story.", max_tokens=80_000))
    step_until(engine, lambda events: any(isinstance(event, Delta) for event in events))
    engine.take(ask(2, "Tell me a story. " * 15_000, max_tokens=1))
    engine.take(ask(3, "Count to five.", max_tokens=1))
    events = list[Event]()
    while not read.is_set():
        events += engine.step()
    assert sum(isinstance(event, Delta) for event in events) > 3
    assert {event.id for event in events} == {1, 3}
    assert any(isinstance(event, Finished) for event in events)
    engine.cancel(1)
    prompt = step_until(engine, lambda events: any(isinstance(event, Prefill) for event in events))
    assert {event.id for event in prompt} == {2}
    cancel(engine, 2)


def test_a_short_prompt_reports_no_progress(tiny: mlx_lm.MlxLm) -> None:
    assert not [event for event in run(tiny, ask(1, FRANCE[0]))[1] if isinstance(event, Prefill)]


def test_when_the_model_fails_every_request_in_the_batch_does_and_the_next_one_works(
    tiny: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(DecodeStep, "next", lambda _: 1 / 0)
        events = run(tiny, *(ask(i, FRANCE[0]) for i in range(6)))
    assert all(failure(events[i]).kind == "generation_failed" for i in range(6))
    assert text(run(tiny, ask(7, FRANCE[0]))[7]) == FRANCE[1]


@pytest.mark.parametrize("broken", ["sampler", "text", "grammar"])
def test_what_fails_for_one_request_fails_that_request_alone(
    tiny: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    with monkeypatch.context() as patch:
        if broken == "sampler":
            patch.setattr(mx.random, "categorical", lambda *_, **__: 1 / 0)
            bad = ask(2, "Count to five.", Sampling(temperature=0.321))
        elif broken == "grammar":
            patch.setattr(Constraint, "_allowed", lambda _: 1 / 0)
            bad = ask(2, "Count to five.", form=Regex("[0-9 ]+"))
        else:
            push, owner = AnswerText.push, iter([True])
            patch.setattr(AnswerText, "push", lambda self, token: 1 / 0 if next(owner, None) else push(self, token))
            bad = ask(2, "Count to five.")
        events = run(tiny, *((bad, ask(1, FRANCE[0])) if broken == "text" else (ask(1, FRANCE[0]), bad)))
    assert failure(events[2]).kind == "generation_failed"
    assert "ZeroDivisionError" in failure(events[2]).message
    assert text(events[1]) == FRANCE[1]


def test_a_grammar_that_no_answer_can_follow_is_the_requests_own_mistake(
    tiny: mlx_lm.MlxLm, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def give_up(_: Constraint) -> None:
        raise GrammarStuck("no token continues it")

    monkeypatch.setattr(Constraint, "_allowed", give_up)
    for engine in (tiny, load(tiny_model, draft=str(tiny_model))):
        failed = failure(run(engine, ask(1, FRANCE[0], form=Regex("a")))[1])
        assert (failed.kind, failed.param) == ("invalid_request", "regex")
        assert "no token continues it" in failed.message
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_goes_on_while_the_grammar_of_another_is_compiled(
    endless: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, threads = GrammarCompiler._compile, []
    may = threading.Event()

    def compile_later(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        assert threading.main_thread() in threads or may.wait(60)
        return compiled(*arguments)

    monkeypatch.setattr(GrammarCompiler, "_compile", compile_later)
    endless.take(ask(1, "Hello"))
    step_until(endless, lambda events: any(isinstance(event, Delta) for event in events))
    wrong = JsonSchema('{"enum": []}', True)
    for id_, form in ((2, Regex("[x-z]{4}")), (3, wrong), (4, wrong)):
        endless.take(ask(id_, "Hello", form=form))
    events = step_until(endless, lambda events: sum(isinstance(event, Delta) for event in events) > 20)
    assert {event.id for event in events} == {1}

    may.set()
    while {event.id for event in events if isinstance(event, Finished | Failed)} != {2, 3, 4}:
        events += endless.step()
    assert re.fullmatch("[x-z]{4}", text([event for event in events if event.id == 2]))
    assert [event.kind for event in events if isinstance(event, Failed)] == ["invalid_request"] * 2
    assert threading.main_thread() not in threads
    assert len(threads) == 2
    cancel(endless, 1)


@pytest.mark.parametrize("options", [{}, {"draft": True}])
def test_a_prompt_that_is_an_earlier_prompt_with_its_whole_answer_is_answered_as_without_the_cache(
    tiny: mlx_lm.MlxLm, tiny_model: Path, options: dict[str, Any]
) -> None:
    engine = load(tiny_model, **{name: str(tiny_model) for name in options})
    written = f"<|im_start|>user\n{FRANCE[0]}<|im_end|>\n<|im_start|>assistant\n"
    first = Complete(id=1, prompt=written, sampling=GREEDY, max_tokens=6)
    prompt = tiny._rows._tokenizer.encode(written + text(run(engine, first)[1]))
    for again in range(3):
        repeat = Complete(id=2, prompt=prompt, sampling=GREEDY, max_tokens=30, n=1 + again)
        events, cold = run(engine, repeat)[2], run(tiny, repeat)[2]
        assert sorted(e.choice for e in events if isinstance(e, Ended)) == list(range(1 + again))
        for choice in range(1 + again):
            assert text([e for e in events if isinstance(e, Delta) and e.choice == choice]) == text(
                [e for e in cold if isinstance(e, Delta) and e.choice == choice]
            )
        finished = end(events)
        assert isinstance(finished, Finished)
        assert finished.cached_tokens == len(prompt) - 1


def test_an_answer_is_stored_after_its_last_event_and_before_the_next_request(tiny_model: Path) -> None:
    engine = load(tiny_model)
    prompt = f"<|im_start|>user\n{FRANCE[0]}<|im_end|>\n<|im_start|>assistant\n"
    engine.take(Complete(id=1, prompt=prompt, sampling=GREEDY, max_tokens=6))
    first = step_until(engine, lambda events: any(isinstance(event, Finished) for event in events))
    assert len(engine._batch.prefixes) == 0
    finished = end(run(engine, Complete(id=2, prompt=prompt + text(first), sampling=GREEDY, max_tokens=6))[2])
    assert isinstance(finished, Finished)
    assert finished.cached_tokens == finished.prompt_tokens - 1
    assert not engine.busy


def test_nothing_of_a_request_stays_when_it_has_ended(tiny: mlx_lm.MlxLm, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: weakref.WeakSet[Any] = weakref.WeakSet()
    begin = AnswerText.__init__
    monkeypatch.setattr(
        AnswerText, "__init__", lambda self, *args, **more: (answers.add(self), begin(self, *args, **more))[1]
    )
    run(tiny, *(ask(i, FRANCE[0], stop=["Par"] if i % 2 else []) for i in range(8)))
    gc.collect()
    assert not answers


def test_memory_comes_back_when_requests_end(endless: mlx_lm.MlxLm) -> None:
    run(endless, ask(1, "Tell me a story.", max_tokens=2))
    before = mx.get_active_memory()
    for _ in range(2):
        run(endless, *(ask(i, "Tell me a story. " * 20, max_tokens=20) for i in range(8)))
    assert mx.get_active_memory() <= before + 100_000
    assert mx.get_cache_memory() == 0


ODD_TEXTS = ["", "\0", "\ud800", "🙂" * 50, "<|im_end|>" * 50, "\u202e\ufffe", " " * 5_000, "\r\n\t", "{{ 7 * 7 }}"]
ODD_SAMPLING = [GREEDY, Sampling(float("nan")), Sampling(1e-300), Sampling(1e300), Sampling(2.0, 1e-300, -(2**63))]
ODD_STOPS: list[list[str]] = [[], [""], ["x" * 10_000], ["\0", "\ud800", "e"]]


@pytest.mark.parametrize(("prompt", "problem"), [([99_999], "no token 99999"), ("story " * 2500, "context is 2048")])
def test_a_prompt_that_is_refused_is_called_prompt(tiny: mlx_lm.MlxLm, prompt: Any, problem: str) -> None:
    failed = failure(run(tiny, Complete(id=1, prompt=prompt))[1])
    assert failed.param == "prompt"
    assert problem in failed.message


def test_nothing_that_a_client_sends_stops_the_engine(
    tiny: mlx_lm.MlxLm, capfd: pytest.CaptureFixture[str], draws: Draws
) -> None:
    chance = random.Random(1)  # a repeatable test
    ended: list[int] = []
    for request_id in range(count := draws(60)):
        messages = [
            Message(chance.choice(["user", "assistant", "developer", "tool", "", "👋"]), chance.choice(ODD_TEXTS))
            for _ in range(chance.randrange(4))
        ]
        sampling, stop = chance.choice(ODD_SAMPLING), chance.choice(ODD_STOPS)
        tiny.take(
            Chat(
                id=request_id, messages=messages, sampling=sampling, max_tokens=chance.choice([-1, 0, 1, 9]), stop=stop
            )
        )
        if chance.random() < 0.2:
            tiny.take(ask(request_id, "The same id again."))
        for _ in range(chance.randrange(3)):
            tiny.cancel(chance.randrange(-5, count + 50))
        ended += [event.id for event in tiny.step() if isinstance(event, Finished | Failed)]
    while tiny.busy:
        ended += [event.id for event in tiny.step() if isinstance(event, Finished | Failed)]
    assert len(ended) > count / 3
    assert text(run(tiny, ask(999, FRANCE[0]))[999]) == FRANCE[1]
    assert "Traceback" not in capfd.readouterr().err
