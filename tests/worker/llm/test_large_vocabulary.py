"""Choosing from a large vocabulary: the same as sorting all of it, in every case that logits can take."""

from __future__ import annotations

import numpy as np
import pytest

from localapi.worker.llm.large_vocabulary import (
    Floats,
    SamplingLimits,
    draw,
    kth_largest,
    largest,
    nucleus_limit,
)

SIZE = 5_000
RANDOM = np.random.default_rng(5)
PEAKED = (RANDOM.normal(size=SIZE) * 4).astype(np.float32)
FLAT = (RANDOM.normal(size=SIZE) * 0.01).astype(np.float32)
TIES = np.round(RANDOM.normal(size=SIZE) * 2).astype(np.float32)
MASKED = np.where(RANDOM.random(SIZE) < 0.999, -np.inf, PEAKED).astype(np.float32)
FAR = (PEAKED * 60 - 5000).astype(np.float32)
EQUAL = np.zeros(SIZE, np.float32)
ONE = np.where(np.arange(SIZE) == 777, 3, -np.inf).astype(np.float32)
SMALL = np.array([0.5, 2, -1], np.float32)
CASES = {
    "peaked": PEAKED,
    "flat": FLAT,
    "ties": TIES,
    "masked": MASKED,
    "far": FAR,
    "equal": EQUAL,
    "one": ONE,
    "small": SMALL,
}


def _allowed(logits: Floats, limits: SamplingLimits) -> set[int]:
    """Return the tokens within the limits by the straightforward definition: sort everything, limit after limit."""
    order = np.argsort(-logits.astype(np.float64), kind="stable")
    weights = np.exp((logits - logits.max()).astype(np.float64))[order]
    allowed = logits[order] > -np.inf
    if limits.top_p < 1:
        above = np.cumsum(weights) - weights
        least = logits[order][above < limits.top_p * weights.sum()].min()
        allowed &= logits[order] >= least
    if limits.min_p > 0:
        allowed &= weights >= limits.min_p
    if 0 < limits.top_k < allowed.sum():
        allowed &= logits[order] >= logits[order][allowed][limits.top_k - 1]
    return {int(token) for token in order[allowed]}


def _drawn(logits: Floats, limits: SamplingLimits, uniform: float) -> int:
    """Return the token that `draw` is defined to return."""
    chosen = sorted(_allowed(logits, limits))
    weights = [np.exp(float(logits[token] - logits.max()) / limits.temperature) for token in chosen]
    wanted, total = uniform * sum(weights), 0.0
    for token, weight in zip(chosen, weights, strict=True):
        total += weight
        if total > wanted:
            return token
    raise AssertionError(uniform)


@pytest.mark.parametrize("top_p", [1e-9, 0.05, 0.5, 0.9, 0.999, 0.9999999])
@pytest.mark.parametrize("case", CASES)
def test_the_nucleus_is_that_of_a_full_sort(case: str, top_p: float) -> None:
    logits = CASES[case]
    nucleus = {
        int(token) for token in np.flatnonzero(logits >= nucleus_limit(logits, top_p)) if logits[token] > -np.inf
    }
    expected = _allowed(logits, SamplingLimits(1.0, top_p))
    # Sums of probabilities in another order may differ in the last digit: by one token, of the least likely.
    assert len(nucleus ^ expected) <= 1


@pytest.mark.parametrize("k", [1, 2, 40, 63, 64, 78, 79, SIZE])
@pytest.mark.parametrize("case", [case for case in CASES if case != "small"])
def test_the_largest_are_those_of_a_full_sort(case: str, k: int) -> None:
    logits = CASES[case]
    order = np.argsort(-logits, kind="stable")
    assert kth_largest(logits, k) == logits[order[k - 1]]
    assert largest(logits, min(k, 100)) == order[: min(k, 100)].tolist()


def test_no_more_tokens_are_given_than_there_are() -> None:
    assert largest(SMALL, 20) == [1, 0, 2]
    assert largest(SMALL, 0) == []


LIMITS = [
    SamplingLimits(1.0),
    SamplingLimits(0.3),
    SamplingLimits(0.7, top_p=0.8),
    SamplingLimits(0.7, top_k=3),
    SamplingLimits(1.5, min_p=0.1),
    SamplingLimits(0.9, top_p=0.6, top_k=30, min_p=0.02),
    SamplingLimits(2.0, top_p=0.97, top_k=500),
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("case", ["peaked", "ties", "masked", "one", "small"])
def test_a_random_number_gives_the_token_of_the_definition(case: str, limits: SamplingLimits) -> None:
    logits = CASES[case]
    for uniform in (0.0, 0.4, 0.97):
        assert draw(logits, limits, uniform) == _drawn(logits, limits, uniform)


def test_a_masked_token_is_never_drawn() -> None:
    for uniform in (0.0, 0.5, 1 - 2**-48):
        assert draw(ONE, SamplingLimits(1.0), uniform) == 777
        assert MASKED[draw(MASKED, SamplingLimits(100.0), uniform)] > -np.inf


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_none_give_some_token(broken: float) -> None:
    logits = np.where(np.arange(SIZE) == 9, broken, PEAKED).astype(np.float32)
    assert draw(logits, LIMITS[-2], 0.5) == 9
