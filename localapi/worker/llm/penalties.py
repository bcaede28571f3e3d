"""Change the logits before a token is sampled: penalties for repetition, and a bias for single tokens.

A request that asks for neither has no processor, because a single one takes the whole batch off mlx-lm's fast path.
Processors never raise: an exception in the middle of a step would lose the other rows' tokens. it.
"""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx

from localapi.worker.protocol import Sampling


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
