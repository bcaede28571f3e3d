"""Answer one request after the other with mlx-vlm, whose batches cannot take our samplers and grammars.

It has the interface of `worker.llm.batch.Batch`. One step computes a prompt, or one token.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import mlx.core as mx
from mlx_vlm.generate import generate_step  # type: ignore[import-not-found]
from mlx_vlm.models.cache import make_prompt_cache  # type: ignore[import-not-found]

from localapi.worker.llm.batch import PREFILL_TOKENS
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.row import Processor, Row
from localapi.worker.llm.serial import Serial
from localapi.worker.protocol import Event


class Left(Exception):
    """The client has left while its prompt was being computed."""


class LoneAnswers(Serial):
    """The rows of the one request that is being answered. The first one grows."""

    def __init__(
        self,
        model: Any,
        *,
        stop_tokens: Sequence[int],
        max_rows: int,
        token_bytes: Callable[[int], bytes],
        cancelled: Callable[[int], bool],
    ) -> None:
        """Start empty. `cancelled`: as in `Host`."""
        super().__init__(
            model,
            draft=None,
            caches=[],
            stop_tokens=stop_tokens,
            max_rows=max_rows,
            prefixes=PrefixCache([], max_bytes=0),  # pictures look alike as tokens
            token_bytes=token_bytes,
        )
        self._cancelled = cancelled

    def _begin(self, row: Row) -> None:
        """Start from nothing: what other prompts computed is not kept."""
        self._caches, self._tokens = [], []

    def _advance(self, row: Row, events: list[Event]) -> None:
        self._answer = self._answer or self._generator(row)
        token, logprobs = next(self._answer)
        if not self._tokens:
            self._tokens = list(row.prompt)
        self._tokens.append(token)
        if self._take(row, token, logprobs, events):
            self._end(keep=False)
            self._rows.popleft()
            if self._rows:
                self._begin(self._rows[0])

    def _end(self, *, keep: bool) -> None:
        super()._end(keep=False)

    def _generator(self, row: Row) -> Generator[tuple[Any, ...]]:
        sight = row.sight
        tokens = mx.array([row.prompt]) if sight is None else sight.input_ids
        prompt = mx.array(row.prompt, mx.uint32)

        def look(_: int, __: Any) -> None:
            if self._cancelled(row.id):
                raise Left

        generated: Generator[tuple[Any, ...]] = generate_step(
            tokens,
            self._model,
            None if sight is None else sight.pixel_values,
            None if sight is None else sight.mask,
            max_tokens=row.max_tokens,
            sampler=row.sampler,
            logits_processors=[_with_prompt(prompt, processor) for processor in row.processors],
            prompt_cache=make_prompt_cache(self._model.language_model),
            prefill_step_size=PREFILL_TOKENS,
            prompt_cache_checkpoint=look,
            prompt_cache_checkpoint_lengths=list(range(PREFILL_TOKENS, len(row.prompt), PREFILL_TOKENS)),
            **({} if sight is None else sight.others),
        )
        return generated


def _with_prompt(prompt: mx.array, processor: Processor) -> Callable[[mx.array, mx.array], Any]:
    """Return the processor with prompt and answer as its input: mlx-vlm gives it a part of the prompt, or all of it."""
    calls = 0

    def process(tokens: mx.array, logits: mx.array) -> Any:
        nonlocal calls
        answer = tokens[tokens.size - calls :].astype(mx.uint32)
        calls += 1
        return processor(mx.concatenate([prompt, answer]), logits)

    return process
