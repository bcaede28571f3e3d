"""The step in which every row of a batch gets a token, at no more cost than a row alone has in mlx-lm.

mlx-lm 0.32.2 computes the log-probabilities of the whole vocabulary for every row, and gives a single row masks and
offsets that only several rows need. Here log-probabilities are computed for rows that report them, and a single row has
the caches that `generate_step` uses. This file becomes unnecessary when mlx-lm's batches do both.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import mlx.core as mx
from mlx_lm.generate import GenerationBatch
from mlx_lm.models.cache import BatchKVCache, KVCache


class DecodeStep(GenerationBatch):
    """The rows that are decoded. Their samplers get logits, which need not be normalised."""

    samplers: Any
    logits_processors: Any
    _current_tokens: Any
    _next_tokens: Any
    reporting: Container[int] = ()
    """The uids of rows that report log-probabilities."""

    def extend(self, batch: Any) -> None:
        """Add the rows of another batch."""
        self._join_caches()
        super().extend(batch)  # type: ignore[no-untyped-call]

    def extract_cache(self, idx: int) -> list[Any]:
        """Return a row's caches. Those of a single row are its own: the caller removes the row."""
        if self._has_own_caches():
            return list(self.prompt_cache)
        return super().extract_cache(idx)

    def _step(self) -> tuple[list[int], list[Any]]:
        """Start the computation of the next tokens; return the current ones, and the log-probabilities of some."""
        self._separate_caches()
        self._current_tokens, self._current_logprobs = self._next_tokens, self._next_logprobs
        inputs = self._current_tokens
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        logits, contexts = self._processed(inputs, logits)
        samplers = self.samplers
        if all(sampler is samplers[0] for sampler in samplers):
            sampled = samplers[0](logits)
        else:
            sampled = mx.concatenate([sample(logits[row : row + 1]) for row, sample in enumerate(samplers)], axis=0)
        self._next_tokens = sampled
        self._next_logprobs = [
            logits[row] - mx.logsumexp(logits[row], axis=-1, keepdims=True) if uid in self.reporting else None
            for row, uid in enumerate(self.uids)
        ]
        reported = [logprobs for logprobs in self._next_logprobs if logprobs is not None]
        mx.async_eval(sampled, reported, contexts)  # type: ignore[no-untyped-call]
        mx.eval(inputs, [logprobs for logprobs in self._current_logprobs if logprobs is not None])
        tokens: list[int] = inputs.tolist()
        for row_tokens, token in zip(self.tokens, tokens, strict=True):
            row_tokens.append(token)
        return tokens, self._current_logprobs

    def _processed(self, inputs: mx.array, logits: mx.array) -> tuple[mx.array, list[mx.array]]:
        """Return the logits after each row's processors, and the tokens that these were given."""
        if not any(self.logits_processors):
            return logits, []
        rows, contexts = [], []
        for row, processors in enumerate(self.logits_processors):
            changed = logits[row : row + 1]
            if processors:
                buffer: Any = self._token_context[row]
                context = buffer.update_and_fetch(inputs[row : row + 1])
                contexts.append(context)
                for process in processors:
                    changed = process(context, changed)
            rows.append(changed)
        return mx.concatenate(rows, axis=0), contexts

    def _has_own_caches(self) -> bool:
        return any(type(cache) is KVCache for cache in self.prompt_cache)

    def _separate_caches(self) -> None:
        """Give a single row the caches that it would have without a batch."""
        if len(self.uids) == 1 and all(type(cache) is BatchKVCache for cache in self.prompt_cache):
            self.prompt_cache = [cache.extract(0) for cache in self.prompt_cache]

    def _join_caches(self) -> None:
        """Prepare a single row's caches for company."""
        if self._has_own_caches():
            self.prompt_cache = [cache.merge([cache]) for cache in self.prompt_cache]
