"""Choose the next token: penalties and biases, the sampler, and the log probabilities of what was sampled.

mlx-lm calls a sampler once for the whole batch if every row has the same object, and row by row otherwise, so equal
parameters give the same object. Likewise a request that changes no logits has no processor, because a single one takes
the whole batch off mlx-lm's fast path. Samplers and processors never raise: an exception in the middle of a step would
lose the other rows' tokens. This module knows MLX, and of requests only their parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

import mlx.core as mx
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.protocol import Sampling, TokenLogprob, TopLogprob

COLDEST = 1e-3
"""Below this temperature the most likely token is taken: the result is the same, and half precision would overflow."""
DEFAULT_TEMPERATURE = 1.0
"""As OpenAI's, if nobody sets it."""
LEAST_LOGPROB = -9999.0
"""The value for an impossible token, because JSON has no infinity. OpenAI uses -9999.0, too."""
_SEED_MASK = 2**64 - 1

TokenBytes = Callable[[int], bytes]


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


def penalties_for(sampling: Sampling) -> Penalties | None:
    """Return the processor for these parameters; None if they change nothing."""
    changes = (
        sampling.presence_penalty,
        sampling.frequency_penalty,
        sampling.repetition_penalty not in (None, 1),
        sampling.logit_bias,
    )
    return Penalties(sampling) if any(changes) else None


class Penalties:
    """A logits processor in mlx-lm's sense: tokens so far (length,) and logits (1, vocabulary) to logits.

    `presence_penalty` and `frequency_penalty` apply to generated tokens, as OpenAI's do; `repetition_penalty` applies
    to the prompt, too, as in Hugging Face's and vLLM's. `error` is set if something went wrong; logits are unchanged
    since.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._presence = sampling.presence_penalty or 0.0
        self._frequency = sampling.frequency_penalty or 0.0
        self._repetition = 1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty
        self._logit_bias = sampling.logit_bias or {}
        self._prompt_tokens: int | None = None
        self._counts = mx.zeros((0,))
        """How often each token was generated (vocabulary,)."""
        self._seen = mx.zeros((0,), mx.bool_)
        """True for tokens that are in the prompt or were generated (vocabulary,)."""
        self._bias: mx.array | None = None
        self.error: Exception | None = None

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self.error is not None:
            return logits
        try:
            self._count(tokens, logits.shape[-1])
            return self._changed(logits)
        except Exception as error:  # must not reach the other rows; this request fails alone
            self.error = error
            return logits

    def _count(self, tokens: mx.array, vocabulary: int) -> None:
        """Count the token since the last call. mlx-lm calls once for each token."""
        if self._prompt_tokens is None:
            self._prompt_tokens = len(tokens)
            self._counts = mx.zeros((vocabulary,))
            self._seen = mx.zeros((vocabulary,), mx.bool_)
            self._seen[tokens] = True
            self._bias = _bias(self._logit_bias, vocabulary)
        elif len(tokens) > self._prompt_tokens:
            newest = tokens[-1:]
            self._counts = self._counts.at[newest].add(1)
            self._seen[newest] = True

    def _changed(self, logits: mx.array) -> mx.array:
        if self._repetition != 1:
            penalty = self._repetition
            logits = mx.where(self._seen, mx.where(logits > 0, logits / penalty, logits * penalty), logits)
        if self._frequency != 0:
            logits = logits - self._frequency * self._counts
        if self._presence != 0:
            logits = logits - self._presence * (self._counts > 0)
        return logits if self._bias is None else logits + self._bias


def _bias(bias: Mapping[int, float], vocabulary: int) -> mx.array | None:
    """Return the bias of every token (vocabulary,). Raises ValueError for a token that does not exist."""
    if not bias:
        return None
    wrong = [token for token in bias if not 0 <= token < vocabulary]
    if wrong:
        raise ValueError(f"logit_bias names the token {wrong[0]}; this model's tokens are 0 to {vocabulary - 1}")
    dense = mx.zeros((vocabulary,))
    dense[mx.array(list(bias))] = mx.array(list(bias.values()))
    return dense


def token_logprob(token: int, logprobs: mx.array, top: int, token_bytes: TokenBytes) -> TokenLogprob:
    """Return the sampled token and the `top` likeliest. `logprobs` (vocabulary,) must be evaluated."""
    drawn = _finite(logprobs[token].item())
    return TokenLogprob(token_bytes(token), drawn, _likeliest(logprobs, top, token_bytes))


def _likeliest(logprobs: mx.array, top: int, token_bytes: TokenBytes) -> list[TopLogprob]:
    if top == 0:
        return []
    top = min(top, logprobs.shape[-1])
    tokens = mx.argpartition(-logprobs, kth=top - 1)[:top]
    values = logprobs[tokens]
    mx.eval(tokens, values)
    pairs = zip(cast("list[int]", tokens.tolist()), cast("list[float]", values.tolist()), strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    return [TopLogprob(token_bytes(token), _finite(value)) for token, value in ordered]


def _finite(value: object) -> float:
    return max(cast("float", value), LEAST_LOGPROB)
