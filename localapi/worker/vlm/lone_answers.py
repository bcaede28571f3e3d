"""Answer one request after the other with mlx-vlm, for architectures whose rows cannot be decoded together.

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
from localapi.worker.vlm.language import Language
from localapi.worker.vlm.senses import Sight


class Left(Exception):
    """The client has left while its prompt was being computed."""


class LoneAnswers(Serial):
    """Rows of the one request that is being answered. The first one grows."""

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
            prefixes=PrefixCache([], max_bytes=0),  # in which images would look alike
            token_bytes=token_bytes,
        )
        self._cancelled = cancelled
        self._language = Language(model)

    def _begin(self, row: Row) -> None:
        """Start with empty caches."""
        self._tokens, self._caches = [], make_prompt_cache(self._model.language_model)

    def _advance(self, row: Row, events: list[Event]) -> None:
        self._answer = self._answer or self._generator(row)
        token, logprobs = next(self._answer)
        if not self._tokens:
            self._tokens = list(row.prompt)
        self._write(row, token, logprobs, events)

    def _generator(self, row: Row) -> Generator[tuple[Any, ...]]:
        """Return mlx-vlm's generator of tokens."""
        prompt = mx.array(row.prompt, mx.uint32)
        tokens, pixels, mask, others = prompt[None], None, None, {}
        if row.sight is not None:
            sight: Sight = row.sight
            tokens, pixels, mask, others = sight.input_ids, sight.pixel_values, sight.mask, dict(sight.others)

        def look(_: int, __: Any) -> None:
            if self._cancelled(row.id):
                raise Left

        self._language.forget()
        generated: Generator[tuple[Any, ...]] = generate_step(
            tokens,
            self._model,
            pixels,
            mask,
            prompt_cache=self._caches,
            prompt_cache_checkpoint=look,
            prompt_cache_checkpoint_lengths=list(range(PREFILL_TOKENS, len(row.prompt), PREFILL_TOKENS)),
            prefill_step_size=PREFILL_TOKENS,
            max_tokens=row.max_tokens,
            sampler=row.sampler,
            logits_processors=[_with_prompt(prompt, processor) for processor in row.processors],
            **others,
        )
        return generated


def _with_prompt(prompt: mx.array, processor: Processor) -> Callable[[mx.array, mx.array], Any]:
    """Return the processor with prompt and response as its input: mlx-vlm gives it a part or all of the prompt."""
    calls = 0

    def process(tokens: mx.array, logits: mx.array) -> Any:
        nonlocal calls
        answer = tokens[tokens.size - calls :].astype(mx.uint32)
        calls += 1
        return processor(mx.concatenate([prompt, answer]), logits)

    return process
