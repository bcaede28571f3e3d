"""Choose the next token. This module knows MLX, and nothing of requests.

mlx-lm calls a sampler once for the whole batch when every row has the same object, and row by row otherwise; so equal
parameters give the same object. A sampler that raises would lose the other rows' tokens, so these never raise.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, Protocol

import mlx.core as mx
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.protocol import Sampling

COLDEST = 1e-3
"""Below this temperature the most likely token is taken: the result is the same, and half precision would overflow."""
DEFAULT_TEMPERATURE = 1.0
"""As OpenAI's, if nobody sets it."""
_SEED_MASK = 2**64 - 1


class Sampler(Protocol):
    """Log-probabilities (rows, vocabulary) to tokens (rows)."""

    def __call__(self, logprobs: mx.array) -> mx.array: ...


class SamplingLimits(NamedTuple):
    """The parameters that limit which tokens may be sampled."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


class RandomSampler:
    """Sample a token within limits. The temperature applies last, as in mlx-lm.

    With a key the samples are a sequence of their own, whatever else is in the batch. `error` is set if something went
    wrong: the tokens since then are the most likely ones, and no answer.

    Nothing is compiled: `mx.compile` keeps a program for each temperature that any request ever named.
    """

    def __init__(self, limits: SamplingLimits, key: mx.array | None = None) -> None:
        self._limits = limits
        self._key = key
        self.error: Exception | None = None

    def __call__(self, logprobs: mx.array) -> mx.array:
        try:
            return self._draw(logprobs)
        except Exception as error:  # must not reach the other rows; this request fails alone
            self.error = error
            return mx.argmax(logprobs, axis=-1)

    def _draw(self, logprobs: mx.array) -> mx.array:
        limits = self._limits
        if limits.top_p < 1.0:
            logprobs = nucleus(logprobs, limits.top_p)
        if limits.min_p > 0:
            logprobs = likely_enough(logprobs, limits.min_p)
        if 0 < limits.top_k < logprobs.shape[-1]:
            logprobs = likeliest(logprobs, limits.top_k)
        key = None
        if self._key is not None:
            self._key, key = mx.random.split(self._key)
        return mx.random.categorical(logprobs * (1.0 / limits.temperature), key=key)


def sampler_for(sampling: Sampling, choice: int = 0) -> Sampler:
    """Return the sampler for these parameters. With a seed, each choice has a sequence of its own.

    Raises ValueError if no token can be sampled with them.
    """
    temperature = DEFAULT_TEMPERATURE if sampling.temperature is None else sampling.temperature
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be a number from 0 on; it is {temperature}")
    if math.isnan(top_p):
        raise ValueError(f"top_p must be a number from 0 to 1; it is {top_p}")
    if temperature < COLDEST or top_p <= 0:
        return greedy_sampler
    limits = SamplingLimits(temperature, min(top_p, 1.0), max(sampling.top_k or 0, 0), sampling.min_p or 0.0)
    if sampling.seed is not None:
        key = mx.random.key(sampling.seed & _SEED_MASK)
        return RandomSampler(limits, mx.random.split(key, choice + 1)[choice] if choice else key)
    if _unseeded(limits).error is not None:
        _unseeded.cache_clear()
    return _unseeded(limits)


@lru_cache(maxsize=64)
def _unseeded(limits: SamplingLimits) -> RandomSampler:
    return RandomSampler(limits)


def nucleus(logprobs: mx.array, top_p: float) -> mx.array:
    """Keep the most likely tokens whose probabilities add up to `top_p`; set all others to minus infinity.

    The same arithmetic as `mlx_lm.sample_utils.apply_top_p`, not compiled. Half precision's probabilities do not add up
    to 1, hence `total`.
    """
    ascending = mx.sort(logprobs, axis=-1)
    probabilities = mx.exp(ascending.astype(mx.float32))
    above = mx.cumsum(probabilities, axis=-1, reverse=True, inclusive=False)
    total = above[..., :1] + probabilities[..., :1]
    dropped = (above >= top_p * total).sum(axis=-1, keepdims=True)
    # Rounding may drop the most likely token too.
    least = mx.take_along_axis(ascending, mx.minimum(dropped, logprobs.shape[-1] - 1), axis=-1)
    return mx.where(logprobs < least, -mx.inf, logprobs)


def likely_enough(logprobs: mx.array, min_p: float) -> mx.array:
    """Set tokens to minus infinity whose probability is below `min_p` times that of the most likely one."""
    least = logprobs.max(axis=-1, keepdims=True) + math.log(min_p)
    return mx.where(logprobs < least, -mx.inf, logprobs)


def likeliest(logprobs: mx.array, top_k: int) -> mx.array:
    """Set all but the `top_k` most likely tokens to minus infinity. Equal ones at the limit all stay."""
    least = mx.topk(logprobs, top_k, axis=-1).min(axis=-1, keepdims=True)
    return mx.where(logprobs < least, -mx.inf, logprobs)
