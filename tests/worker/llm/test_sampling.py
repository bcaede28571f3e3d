"""Samplers: shared where they may be, alone where they must be, and never an exception."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.sample_utils import apply_top_p, greedy_sampler

from localapi.worker.llm.large_vocabulary import SamplingLimits
from localapi.worker.llm.sampling import (
    LEAST_LOGPROB,
    RandomSampler,
    likeliest,
    likely_enough,
    nucleus,
    penalties_for,
    sampler_for,
    token_logprob,
)
from localapi.worker.protocol import Sampling

LOGPROBS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


def _draws(sampling: Sampling, count: int = 400) -> list[int]:
    sampler = sampler_for(sampling)
    drawn: Any = [sampler(LOGPROBS).item() for _ in range(count)]
    return list(drawn)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(temperature=1e-9), Sampling(top_p=0)])
def test_no_temperature_is_the_greedy_sampler_that_mlx_lm_shares(sampling: Sampling) -> None:
    assert sampler_for(sampling) is greedy_sampler


def test_equal_parameters_share_one_sampler_and_seeds_never_do() -> None:
    assert sampler_for(Sampling(0.7, 0.9)) is sampler_for(Sampling(0.7, 0.9))
    assert sampler_for(Sampling(0.7, 0.9)) is not sampler_for(Sampling(0.8, 0.9))
    assert sampler_for(Sampling(seed=1)) is not sampler_for(Sampling(seed=1))


def test_a_seed_names_a_sequence() -> None:
    assert _draws(Sampling(seed=7)) == _draws(Sampling(seed=7)) != _draws(Sampling(seed=8))


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63 - 1, 2**200])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert set(_draws(Sampling(seed=seed), 50)) <= {0, 1, 2, 3}


def test_top_p_leaves_only_the_most_likely_tokens() -> None:
    assert set(_draws(Sampling(top_p=0.75))) == {0, 1}
    assert set(_draws(Sampling(top_p=1e-9), 20)) == {0}


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.8, 0.999])
def test_the_nucleus_is_mlx_lms(top_p: float) -> None:
    logits = mx.random.normal((5, 300), key=mx.random.key(3)) * 3
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    assert mx.array_equal(nucleus(logprobs, top_p), apply_top_p(logprobs, top_p))


@pytest.mark.parametrize("sampling", [Sampling(math.nan), Sampling(math.inf), Sampling(-1.0), Sampling(top_p=math.nan)])
def test_nonsense_is_refused_before_it_reaches_the_batch(sampling: Sampling) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        sampler_for(sampling)


def test_an_error_is_kept_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = sampler_for(Sampling(temperature=0.123))
    assert isinstance(sampler, RandomSampler)
    with monkeypatch.context() as patch:
        patch.setattr(mx.random, "categorical", lambda *_, **__: 1 / 0)
        assert sampler(LOGPROBS).tolist() == [0]
    assert isinstance(sampler.error, ZeroDivisionError)
    assert sampler_for(Sampling(temperature=0.123)) is not sampler


def _wide(seed: int) -> mx.array:
    logits = mx.random.normal((3, 20_000), key=mx.random.key(seed)) * 3
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def test_a_large_vocabulary_is_sampled_within_the_same_limits() -> None:
    logprobs = _wide(1)
    sampler = sampler_for(Sampling(0.8, top_p=0.3, top_k=50, min_p=0.01, seed=3))
    allowed = likeliest(likely_enough(nucleus(logprobs, 0.3), 0.01), 50)
    for _ in range(20):
        tokens = sampler(logprobs)
        assert tokens.dtype == mx.uint32
        assert mx.all(mx.isfinite(mx.take_along_axis(allowed, tokens[:, None], axis=-1)))


def test_in_a_large_vocabulary_too_a_seed_names_a_sequence() -> None:
    logprobs = _wide(2)[:1]

    def drawn(seed: int) -> list[list[int]]:
        sampler = sampler_for(Sampling(seed=seed))
        return [sampler(logprobs).tolist() for _ in range(10)]  # type: ignore[misc]

    assert drawn(7) == drawn(7) != drawn(8)


def test_a_large_vocabulary_is_sampled_by_its_probabilities() -> None:
    logprobs = mx.full((400, 10_000), -math.inf)
    logprobs[:, 4_000] = math.log(0.75)
    logprobs[:, 9_999] = math.log(0.25)
    drawn: Any = RandomSampler(SamplingLimits(1.0), mx.random.key(1))(logprobs).tolist()
    assert 270 < drawn.count(4_000) < 330
    assert drawn.count(9_999) == 400 - drawn.count(4_000)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_penalties_change_the_tokens_so_far_as_their_definition_says(dtype: mx.Dtype) -> None:
    logits = mx.array([[2.0, -2.0, 1.0, 0.5, -1.0, 4.0]], dtype)
    penalties = penalties_for(
        Sampling(presence_penalty=0.5, frequency_penalty=0.25, repetition_penalty=2.0, logit_bias={5: -3.0, 0: 1.0})
    )
    assert penalties is not None
    prompt = [0, 1, 1]
    assert penalties(mx.array(prompt), logits).tolist() == [[2.0, -4.0, 1.0, 0.5, -1.0, 1.0]]
    assert penalties(mx.array([*prompt, 2]), logits).tolist() == [[2.0, -4.0, -0.25, 0.5, -1.0, 1.0]]
    assert penalties(mx.array([*prompt, 2, 2]), logits).tolist() == [[2.0, -4.0, -0.5, 0.5, -1.0, 1.0]]
    assert penalties(mx.array([*prompt, 2, 2, 0]), logits).tolist() == [[1.25, -4.0, -0.5, 0.5, -1.0, 1.0]]
    assert penalties.error is None


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_log_probabilities_name_the_likeliest_and_of_equal_ones_the_first(dtype: mx.Dtype) -> None:
    logprobs = mx.full((20_000,), -math.inf, dtype)
    for token, value in ((17, -2.0), (19_999, -0.5), (3, -2.0), (4, -3.0)):
        logprobs[token] = value
    found = token_logprob(4, logprobs, 3, lambda token: str(token).encode())
    assert (found.token, found.logprob) == (b"4", -3.0)
    assert [(each.token, each.logprob) for each in found.top] == [(b"19999", -0.5), (b"3", -2.0), (b"17", -2.0)]
    assert token_logprob(5, logprobs, 0, lambda _: b"").logprob == LEAST_LOGPROB
