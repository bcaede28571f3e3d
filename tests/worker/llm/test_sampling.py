"""Samplers: shared where they may be, alone where they must be, and never an exception."""

from __future__ import annotations

import math

import mlx.core as mx
import pytest
from mlx_lm.sample_utils import apply_top_p, greedy_sampler

from localapi.worker.llm.sampling import RandomSampler, nucleus, sampler_for
from localapi.worker.protocol import Sampling

LOGPROBS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


def _draws(sampling: Sampling, count: int = 400) -> list[int]:
    sampler = sampler_for(sampling)
    return [int(sampler(LOGPROBS).item()) for _ in range(count)]


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
