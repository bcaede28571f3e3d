"""Choose the next token: penalties and biases, the sampler, and the log probabilities of sampled tokens.

mlx-lm calls a sampler once for the whole batch if every row has the same object, and row by row otherwise, so equal
parameters give the same object. Likewise, a request that changes no logits has no processor, because a single one takes
the whole batch off mlx-lm's fast path. Samplers and processors never raise: an exception during a step would lose the
other rows' tokens. This module knows MLX, and of requests only their parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.llm.large_vocabulary import Floats, SamplingLimits, draw, largest
from localapi.worker.protocol import Sampling, TokenLogprob, TopLogprob

COLDEST = 1e-3
"""Temperature below which the most likely token is taken: the result is the same, and half precision would overflow."""
DEFAULT_TEMPERATURE = 1.0
"""OpenAI's default, if nobody sets it."""
LEAST_LOGPROB = -9999.0
"""Value for an impossible token, because JSON has no infinity. OpenAI also uses -9999.0."""
LARGE_VOCABULARY = 8192 if mx.default_device().type == mx.cpu else math.inf
"""Number of tokens above which numpy is faster. A GPU sorts faster than it transfers its numbers."""
_SEED_MASK = 2**64 - 1

TokenBytes = Callable[[int], bytes]


class Sampler(Protocol):
    """Function from logits, normalized or not, (rows, vocabulary), to tokens (rows)."""

    def __call__(self, logprobs: mx.array) -> mx.array: ...


class RandomSampler:
    """Sample a token within limits. The temperature applies last, as in mlx-lm.

    With a key, the samples are a sequence of their own, whatever else is in the batch. `error` is set if something went
    wrong: the tokens since then are the most likely ones, and not a valid response.

    Nothing is compiled, because `mx.compile` keeps a program for each temperature that any request ever named.
    """

    def __init__(self, limits: SamplingLimits, key: mx.array | None = None) -> None:
        self._limits = limits
        self._key = key
        self.error: Exception | None = None

    def __call__(self, logprobs: mx.array) -> mx.array:
        try:
            return self._draw(logprobs)
        except Exception as error:  # must not affect the other rows; only this request fails
            self.error = error
            return mx.argmax(logprobs, axis=-1)

    def skip(self, tokens: int) -> None:
        """Continue as if this many tokens had been sampled: a seed gives the same response if tokens are forced."""
        if self._key is not None:
            for _ in range(tokens):
                self._key = mx.random.split(self._key)[0]

    def _draw(self, logprobs: mx.array) -> mx.array:
        limits = self._limits
        key = None
        if self._key is not None:
            self._key, key = mx.random.split(self._key)
        if logprobs.shape[-1] >= LARGE_VOCABULARY:
            uniforms = uniform_numbers(logprobs.shape[0], key)
            rows = zip(_numbers(logprobs), uniforms, strict=True)
            return mx.array([draw(row, limits, uniform) for row, uniform in rows], mx.uint32)
        # A nucleus needs probabilities. For the rest, half precision must not overflow at low temperatures.
        highest = mx.logsumexp if limits.top_p < 1.0 else mx.max
        logprobs = logprobs - highest(logprobs, axis=-1, keepdims=True)
        if limits.top_p < 1.0:
            logprobs = nucleus(logprobs, limits.top_p)
        if limits.min_p > 0:
            logprobs = likely_enough(logprobs, limits.min_p)
        if 0 < limits.top_k < logprobs.shape[-1]:
            logprobs = likeliest(logprobs, limits.top_k)
        return mx.random.categorical(logprobs * (1.0 / limits.temperature), key=key)


def sampler_for(sampling: Sampling, choice: int = 0) -> Sampler:
    """Return the sampler for these parameters. With a seed, each choice has its own sequence.

    Raise ValueError if no token can be sampled with them.
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
    """Set tokens whose probability is below `min_p` times that of the most likely one to minus infinity."""
    least = logprobs.max(axis=-1, keepdims=True) + math.log(min_p)
    return mx.where(logprobs < least, -mx.inf, logprobs)


def likeliest(logprobs: mx.array, top_k: int) -> mx.array:
    """Set all but the `top_k` most likely tokens to minus infinity. Equal ones at the limit are all kept."""
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
    """Logits processor in mlx-lm's sense: tokens so far (length,) and logits (1, vocabulary) to logits.

    `presence_penalty` and `frequency_penalty` apply to generated tokens, as OpenAI's do; `repetition_penalty` also
    applies to the prompt, as in Hugging Face's and vLLM's. `error` is set if something went wrong; logits are unchanged
    since.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._presence = sampling.presence_penalty or 0.0
        self._frequency = sampling.frequency_penalty or 0.0
        self._repetition = 1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty
        self._logit_bias = sampling.logit_bias or {}
        self._prompt_tokens: int | None = None
        self._prompt = mx.zeros((0,), mx.int32)
        """Tokens of the prompt, each once, if a penalty applies to them."""
        self._counts = mx.zeros((0,))
        """Number of times each token was generated, shape (vocabulary,)."""
        self._counted = 0
        """Number of tokens of prompt and response at the last call."""
        self.error: Exception | None = None

    def forced(self, token: int) -> list[int]:
        """Return nothing: a penalty forces no token."""
        return []

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self.error is not None:
            return logits
        try:
            self._count(tokens, logits.shape[-1])
            return self._biased(self._penalised(tokens, logits))
        except Exception as error:  # must not affect the other rows; only this request fails
            self.error = error
            return logits

    def _count(self, tokens: mx.array, vocabulary: int) -> None:
        """Count the tokens since the last call: one, or several if some were forced."""
        if self._prompt_tokens is None:
            self._prompt_tokens = len(tokens)
            self._counts = mx.zeros((vocabulary,))
            if self._repetition != 1:
                self._prompt = mx.array(np.unique(np.array(tokens)).astype(np.int32))
        elif len(tokens) > self._counted:
            self._counts = self._counts.at[tokens[self._counted :]].add(1)
        self._counted = len(tokens)

    def _penalised(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Change the logits of the tokens so far, and no others: a vocabulary is large.

        A token that was generated twice is changed twice from the same logit, to the same one.
        """
        seen = mx.concatenate([self._prompt, tokens[self._prompt_tokens :].astype(mx.int32)])[None]
        if seen.size == 0:
            return logits
        changed = mx.take_along_axis(logits, seen, axis=-1)
        counts = self._counts[seen]
        if self._repetition != 1:
            changed = mx.where(changed > 0, changed / self._repetition, changed * self._repetition)
        if self._frequency != 0:
            changed = changed - self._frequency * counts
        if self._presence != 0:
            changed = changed - self._presence * (counts > 0)
        return mx.put_along_axis(logits, seen, changed.astype(logits.dtype), axis=-1)

    def _biased(self, logits: mx.array) -> mx.array:
        bias, vocabulary = self._logit_bias, logits.shape[-1]
        if not bias:
            return logits
        wrong = [token for token in bias if not 0 <= token < vocabulary]
        if wrong:
            raise ValueError(f"logit_bias names the token {wrong[0]}; this model's tokens are 0 to {vocabulary - 1}")
        tokens = mx.array(list(bias))[None]
        changed = mx.take_along_axis(logits, tokens, axis=-1) + mx.array(list(bias.values()))
        return mx.put_along_axis(logits, tokens, changed.astype(logits.dtype), axis=-1)


def uniform_numbers(count: int, key: mx.array | None) -> list[float]:
    """Return random numbers from 0 to below 1 with 48 bits: MLX's have 24, and rare tokens are rarer than that."""
    high, low = np.array(mx.random.uniform(shape=(2, count), key=key)).astype(np.float64)
    return [float(number) for number in (np.floor(high * 2**24) + low) / 2**24]


def token_logprob(token: int, logprobs: mx.array, top: int, token_bytes: TokenBytes) -> TokenLogprob:
    """Return the sampled token and the `top` likeliest. `logprobs` (vocabulary,) must be evaluated."""
    numbers = _numbers(logprobs)
    likeliest = [TopLogprob(token_bytes(each), _finite(numbers[each])) for each in largest(numbers, top)]
    return TokenLogprob(token_bytes(token), _finite(numbers[token]), likeliest)


def _numbers(array: mx.array) -> Floats:
    """Return an array's numbers, as numpy knows them: it has no bfloat16."""
    return np.array(array if array.dtype == mx.float32 else array.astype(mx.float32), copy=False)


def _finite(value: float) -> float:
    return max(float(value), LEAST_LOGPROB)
