"""Several tokens of a row in one step, on models of several kinds of caches: the answers are those of single tokens."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache

from localapi.worker.llm.batch import Batch
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.row import FinishReason, Processor, RequestTotals, Row
from localapi.worker.llm.sampling import penalties_for, sampler_for
from localapi.worker.llm.speculation import draft
from localapi.worker.llm.speculation.draft import Drafter
from localapi.worker.llm.speculation.speculation import Speculation, StepCosts
from localapi.worker.protocol import Event, Failed, Sampling
from tests.worker.llm.prefix_cache.test_cache import MODELS, WORDS, model, words

GREEDY = Sampling(temperature=0)
END = 1
LENGTHS = (40, 7, 90)


class AnyWidth(StepCosts):
    """Finds that any width pays, at random or always the largest."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._random = None if seed is None else random.Random(seed)
        self.widths: Counter[int] = Counter()

    def best(self, gains: Sequence[float], rows: int, *, longest_seconds: float, guess_seconds: float = 0.0) -> int:
        width = len(gains) if self._random is None else self._random.randint(1, len(gains))
        self.widths[width] += 1
        return width


class Script:
    """A processor that leaves one token at some places of an answer, as a grammar does."""

    error: Exception | None = None

    def __init__(self, tokens: dict[int, int]) -> None:
        self._tokens = tokens
        self._prompt: int | None = None
        self._length = 0

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self._prompt is None:
            self._prompt = len(tokens)
        self._length = len(tokens)
        at = self._length - self._prompt
        if at not in self._tokens:
            return logits
        return mx.where(mx.arange(logits.shape[-1])[None] == self._tokens[at], logits, -mx.inf)

    def forced(self, token: int) -> list[int]:
        assert self._prompt is not None
        at = self._length - self._prompt + 1
        found = []
        while at in self._tokens:
            found.append(self._tokens[at])
            at += 1
        return found


class TokenRow(Row):
    """An answer of which the test wants the tokens."""

    def grow(self, token: int, reason: FinishReason | None, events: list[Event]) -> bool:
        self.answered.append(token)  # type: ignore[attr-defined]
        self.ended = reason  # type: ignore[attr-defined]
        return reason is not None


class Answering(TokenRow):
    __slots__ = ("answered", "ended")


def row(
    id: int,  # noqa: A002
    prompt: list[int],
    sampling: Sampling = GREEDY,
    *,
    script: dict[int, int] | None = None,
    max_tokens: int = 40,
    top_logprobs: int | None = None,
) -> Any:
    processors: list[Processor] = [each for each in [penalties_for(sampling)] if each is not None]
    if script is not None:
        processors.append(Script(script))
    made: Any = Answering(
        totals=RequestTotals(id, len(prompt)), choice=0, prompt=prompt, max_tokens=max_tokens, reach=0, length=0,
        sampler=sampler_for(sampling), processors=processors, answer=None, parts=None, top_logprobs=top_logprobs,
    )  # fmt: skip
    made.answered, made.ended = [], None
    return made


def batch(kind: str, costs: StepCosts | None, max_bytes: int = 0, drafts: Any = None) -> Batch:
    drafter = None
    if drafts is not None:
        own = make_prompt_cache(drafts)
        drafter = Drafter(drafts, own, PrefixCache(own, max_bytes=max_bytes), 1.0)
    speculation = Speculation(WORDS, 1.0, costs, drafter=drafter) if costs is not None else None
    prefixes = PrefixCache(make_prompt_cache(model(kind)), max_bytes=max_bytes)
    return Batch(
        model(kind), stop_tokens=[END], max_rows=40, max_stall_seconds=1, prefixes=prefixes,
        token_bytes=lambda token: bytes([token]), speculation=speculation,
    )  # fmt: skip


def run(batch: Batch, rows: Sequence[Any], each_step: Callable[[int], None] = lambda _: None) -> list[list[int]]:
    """Have the rows join one after the other, every few steps; return the answers."""
    coming, step = list(rows), 0
    while coming or batch.busy:
        if coming and step % 5 == 0:
            batch.join(coming.pop(0), [])
        each_step(step)
        events: list[Event] = []
        batch.step(events)
        assert not any(isinstance(event, Failed) for event in events), events
        step += 1
    return [each.answered for each in rows]


def repeating(length: int, seed: object) -> list[int]:
    """A prompt that says everything twice, and more often at its end."""
    once = words(max(4, length // 2), seed)
    return [*once, *once, *once[:3]]


def script(seed: object, length: int = 40) -> dict[int, int]:
    """Stretches of forced tokens."""
    rng, found, at = random.Random(str(seed)), {}, rng_start(seed)
    while at < length:
        for _ in range(rng.randint(1, 9)):
            found[at] = rng.randrange(2, WORDS)
            at += 1
        at += rng.randint(1, 4)
    return found


def rng_start(seed: object) -> int:
    return random.Random(f"start {seed}").randint(0, 3)


def mixed() -> list[Any]:
    """Rows of all sorts."""
    penalised = Sampling(temperature=0, repetition_penalty=1.2, frequency_penalty=0.5, presence_penalty=0.3)
    return [
        row(1, repeating(30, 1)),
        row(2, words(50, 2), script=script(2), max_tokens=33),
        row(3, repeating(8, 3), Sampling(temperature=1.0, seed=3), max_tokens=25),
        row(4, repeating(20, 4), penalised, script=script(4)),
        row(5, words(9, 5), Sampling(temperature=0.7, top_p=0.9, seed=8), script=script(5), top_logprobs=2),
        row(6, repeating(12, 6), top_logprobs=1),
    ]


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_rows_of_all_sorts_get_the_answers_of_single_tokens(seed: int | None) -> None:
    plain, costs = mixed(), AnyWidth(seed)
    several = mixed()
    together = batch("qwen3", costs)
    assert run(together, several) == run(batch("qwen3", None), plain)
    assert [each.ended for each in several] == [each.ended for each in plain]
    for ours, theirs in zip(several, plain, strict=True):
        logprobs = [(each.token, pytest.approx(each.logprob, abs=1e-3)) for each in theirs.logprobs]
        assert [(each.token, each.logprob) for each in ours.logprobs] == logprobs
    assert together.speculation is not None
    assert together.speculation.forced > 20
    assert together.speculation.proposed > together.speculation.accepted > 0
    assert max(costs.widths) > 8


def noisy() -> Any:
    """Return a draft model that is often right: the model itself, a little changed."""
    found = copy.deepcopy(model("qwen3"))
    mx.random.seed(9)
    found.update(
        tree_map(lambda p: p if p.ndim < 2 else p + 0.05 * mx.random.normal(p.shape), model("qwen3").parameters())
    )
    return found


@pytest.mark.parametrize("seed", [None, 1])
def test_rows_with_a_draft_model_get_the_answers_of_single_tokens(seed: int | None) -> None:
    plain, several = mixed(), mixed()
    together = batch("qwen3", AnyWidth(seed), drafts=noisy())
    assert run(together, several) == run(batch("qwen3", None), plain)
    assert [each.ended for each in several] == [each.ended for each in plain]
    assert together.speculation is not None
    assert together.speculation.proposed > together.speculation.accepted > 20


def test_a_draft_model_reads_a_long_prompt_in_pieces_and_stores_it_for_the_next_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draft, "MOST_PIECE", 32)
    eager = batch("qwen3", AnyWidth(), max_bytes=1 << 30, drafts=model("qwen3"))
    assert eager.speculation is not None
    assert eager.speculation.drafter is not None
    first = row(1, words(150, "long"), max_tokens=30)
    [answer] = run(eager, [first])
    assert eager.speculation.accepted > 10
    assert run(batch("qwen3", None), [row(1, words(150, "long"), max_tokens=30)]) == [answer]
    hits = eager.speculation.drafter.prefixes.hits
    second = [*first.prompt, *answer, *words(9, "next")]
    assert run(eager, [row(2, second)]) == run(batch("qwen3", None), [row(2, second)])
    assert eager.speculation.drafter.prefixes.hits == hits + 1


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_alone_gets_the_answer_of_single_tokens_from_any_kind_of_cache(kind: str) -> None:
    for i, length in enumerate(LENGTHS):
        rows = [row(1, repeating(length, kind), script=script(i) if i < 2 else None) for _ in range(2)]
        eager = batch(kind, AnyWidth(i or None))
        assert run(eager, rows[:1]) == run(batch(kind, None), rows[1:])
        assert eager.speculation is not None
        assert eager.speculation.forced > 5 or i == 2
        assert eager.speculation.proposed == 0 or kind == "qwen3"  # what cannot be taken back is not guessed


@pytest.mark.parametrize("kind", ["gemma3_text", "falcon_h1"])
def test_several_rows_whose_caches_cannot_leave_gaps_get_the_answers_of_single_tokens(kind: str) -> None:
    assert run(batch(kind, AnyWidth()), mixed()) == run(batch(kind, None), mixed())


@pytest.mark.parametrize("max_tokens", range(1, 8))
def test_max_tokens_ends_an_answer_inside_a_jump(max_tokens: int) -> None:
    forced = {at: 5 + at for at in range(1, 20)}
    answer = row(1, words(9, 1), script=forced, max_tokens=max_tokens)
    other = row(2, words(12, 2), script=forced)
    eager = batch("qwen3", AnyWidth())
    run(eager, [answer, other])
    assert (len(answer.answered), answer.ended) == (max_tokens, "length")
    assert answer.answered[1:] == [5 + at for at in range(1, max_tokens)]


def test_a_row_that_leaves_in_the_middle_changes_no_other_answer() -> None:
    rows = mixed()
    eager = batch("qwen3", AnyWidth())

    def cancel(step: int) -> None:
        if step == 8:
            eager.leave(2)

    answers = run(eager, rows, cancel)
    expected = run(batch("qwen3", None), mixed())
    assert len(answers[1]) < len(expected[1])
    assert answers[1] == expected[1][: len(answers[1])]
    assert answers[:1] + answers[2:] == expected[:1] + expected[2:]


@pytest.mark.parametrize("kind", ["qwen3", "gemma3_text"])
def test_the_next_turn_goes_on_from_what_several_tokens_at_once_have_left_in_the_prefix_cache(kind: str) -> None:
    eager = batch(kind, AnyWidth(), max_bytes=1 << 30)
    first = [row(id_, repeating(30, id_), script=script(id_)) for id_ in (1, 2)]
    answers = run(eager, first)
    turns = [[*each.prompt, *answer, *words(5, "next")] for each, answer in zip(first, answers, strict=True)]
    second = [row(id_, prompt) for id_, prompt in enumerate(turns)]
    expected = run(batch(kind, None), [row(id_, prompt) for id_, prompt in enumerate(turns)])
    assert run(eager, second) == expected
    for each, before in zip(second, first, strict=True):
        assert each.totals.cached_tokens >= len(before.prompt) + len(before.answered) - 1


def test_sampled_tokens_have_the_distribution_of_single_tokens() -> None:
    """The second and third token of many answers, counted; both ways differ by no more than chance."""
    prompt = [7, 8, 9, 10, 7, 8, 9, 10, 7, 8, 9, 10, 7, 8]
    counts = []
    for costs in (None, AnyWidth()):
        found: Counter[tuple[int, ...]] = Counter()
        for start in range(0, 400, 40):
            mx.random.seed(start)
            group, warm = batch("qwen3", costs), Sampling(temperature=0.4)
            rows = [row(i, prompt, warm, max_tokens=3, script={0: 9}) for i in range(start, start + 40)]
            for each in rows:
                group.join(each, [])
            run(group, [])
            found.update(tuple(each.answered[1:]) for each in rows)
        counts.append(found)
    likely = [pair for pair, _ in (counts[0] + counts[1]).most_common(8)]
    statistic = sum((counts[0][pair] - counts[1][pair]) ** 2 / (counts[0][pair] + counts[1][pair]) for pair in likely)
    assert statistic < 26.1  # chi-squared of 8 degrees of freedom, 0.1 %
