"""How the next token is chosen. MLX, and nothing of requests.

mlx-lm calls a sampler once for the whole batch when every row has the same object, and row by row otherwise; so equal
parameters give the same object. A sampler that raises would take the other rows' tokens with it; so these never raise.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import mlx.core as mx
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.protocol import Sampling

COLDEST = 1e-3
"""Below this temperature the most likely token is taken: the odds are the same, and half precision overflows there."""
_SEED_MASK = 2**64 - 1


class Sampler(Protocol):
    """Log-probabilities (rows, vocabulary) to tokens (rows)."""

    def __call__(self, logprobs: mx.array) -> mx.array: ...


class Drawn:
    """Draws a token at a temperature, from the most likely ones that make up `top_p` of the probability.

    With a seed the draws are a sequence of their own, the same in any company. `error` is what went wrong: the tokens
    since then are the most likely ones, and no answer.

    Nothing is compiled: `mx.compile` keeps a program for each temperature that any request ever named.
    """

    def __init__(self, temperature: float, top_p: float, seed: int | None = None) -> None:
        self._sharpness = 1.0 / temperature
        self._top_p = top_p
        self._key = None if seed is None else mx.random.key(seed & _SEED_MASK)
        self.error: Exception | None = None

    def __call__(self, logprobs: mx.array) -> mx.array:
        try:
            return self._draw(logprobs)
        except Exception as error:  # must not reach the other rows; the engine fails this request alone
            self.error = error
            return mx.argmax(logprobs, axis=-1)

    def _draw(self, logprobs: mx.array) -> mx.array:
        if self._top_p < 1.0:
            logprobs = nucleus(logprobs, self._top_p)
        key = None
        if self._key is not None:
            self._key, key = mx.random.split(self._key)
        return mx.random.categorical(logprobs * self._sharpness, key=key)


def sampler_for(sampling: Sampling) -> Sampler:
    """The sampler for these parameters. Raises ValueError where no token can be drawn with them."""
    temperature, top_p = sampling.temperature, sampling.top_p
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be a number from 0 on; it is {temperature}")
    if math.isnan(top_p):
        raise ValueError(f"top_p must be a number from 0 to 1; it is {top_p}")
    if temperature < COLDEST or top_p <= 0:
        return greedy_sampler
    if sampling.seed is not None:
        return Drawn(temperature, min(top_p, 1.0), sampling.seed)
    if _unseeded(temperature, min(top_p, 1.0)).error is not None:
        _unseeded.cache_clear()
    return _unseeded(temperature, min(top_p, 1.0))


@lru_cache(maxsize=64)
def _unseeded(temperature: float, top_p: float) -> Drawn:
    return Drawn(temperature, top_p)


def nucleus(logprobs: mx.array, top_p: float) -> mx.array:
    """Minus infinity for all tokens but the most likely ones whose probabilities add up to `top_p`.

    The same arithmetic as `mlx_lm.sample_utils.apply_top_p`, not compiled. Half precision's probabilities do not add
    up to 1, hence `total`.
    """
    ascending = mx.sort(logprobs, axis=-1)
    probabilities = mx.exp(ascending.astype(mx.float32))
    above = mx.cumsum(probabilities, axis=-1, reverse=True, inclusive=False)
    total = above[..., :1] + probabilities[..., :1]
    dropped = (above >= top_p * total).sum(axis=-1, keepdims=True)
    # Rounding may drop the most likely token too.
    least = mx.take_along_axis(ascending, mx.minimum(dropped, logprobs.shape[-1] - 1), axis=-1)
    return mx.where(logprobs < least, -mx.inf, logprobs)
