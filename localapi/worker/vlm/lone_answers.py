"""Answer one request after the other with mlx-vlm, for architectures whose rows cannot be decoded together.

It has the interface of `worker.llm.batch.Batch`. One step computes a prompt, or one token.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_vlm.generate import generate_step  # type: ignore[import-not-found]
from mlx_vlm.models.cache import make_prompt_cache  # type: ignore[import-not-found]

from localapi.worker.llm.batch import PREFILL_TOKENS
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.row import Processor, Row
from localapi.worker.llm.serial import Serial
from localapi.worker.protocol import Event
from localapi.worker.vlm.senses import Sight
from localapi.worker.vlm.trial import Findings


@dataclass
class Kept:
    """Computed tokens, for the next turn of their conversation."""

    tokens: list[int]
    media: tuple[str, ...]
    """Digests of the images and recordings among the tokens."""
    caches: list[Any]

    def common(self, prompt: list[int]) -> int:
        """Return how many tokens of a prompt can be reused; at least one is left to compute."""
        if not all(cache.is_trimmable() for cache in self.caches):
            return 0
        most = min(len(self.tokens), len(prompt) - 1, *(int(cache.offset) for cache in self.caches))
        return next((at for at in range(most) if self.tokens[at] != prompt[at]), most)


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
        findings: Findings,
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

        self._kept: Kept | None = None
        self._reuses = findings.continues_text, findings.continues_media

    def _begin(self, row: Row) -> None:
        """Start from the cache of the last response, if that is a prefix of this prompt."""
        self._tokens, self._media = [], () if row.sight is None else row.sight.media
        self._shared, self._caches = self._beginning(row)
        row.totals.cached_tokens = max(row.totals.cached_tokens, self._shared)

    def _advance(self, row: Row, events: list[Event]) -> None:
        self._answer = self._answer or self._generator(row)
        token, logprobs = next(self._answer)
        if not self._tokens:
            self._tokens = list(row.prompt)
        self._write(row, token, logprobs, events)

    def _end(self, *, keep: bool) -> None:
        """Stop the first row's generator. Its computed tokens may serve the next turn."""
        reuses = self._reuses[bool(self._media)]
        kept = Kept(self._tokens, self._media, self._caches) if keep and self._tokens and reuses else None
        super()._end(keep=False)
        self._kept = kept

    def _beginning(self, row: Row) -> tuple[int, list[Any]]:
        """Return how many tokens of the prompt are already computed, and the caches that contain exactly these."""
        kept, self._kept = self._kept, None
        sight: Sight | None = row.sight
        if kept is not None and kept.media == self._media:
            length = kept.common(row.prompt)
            # Media are embedded with their whole prompt, so the rest must be text only.
            if length > 0 and (sight is None or (sight.end is not None and length >= sight.end)):
                for cache in kept.caches:
                    cache.trim(cache.offset - length)
                return length, kept.caches
        return 0, self._new_caches()

    def _generator(self, row: Row) -> Generator[tuple[Any, ...]]:
        prompt = mx.array(row.prompt, mx.uint32)

        def look(_: int, __: Any) -> None:
            if self._cancelled(row.id):
                raise Left

        return self._generated(
            row.prompt,
            row.sight,
            self._caches,
            self._shared,
            max_tokens=row.max_tokens,
            sampler=row.sampler,
            logits_processors=[_with_prompt(prompt, processor) for processor in row.processors],
            prompt_cache_checkpoint=look,
        )

    def _generated(
        self, prompt: list[int], sight: Sight | None, caches: list[Any], shared: int, **options: Any
    ) -> Generator[tuple[Any, ...]]:
        """Return mlx-vlm's generator of tokens. `shared` are the tokens of the prompt in the caches."""
        tokens, pixels, mask, others = mx.array([prompt[shared:]]), None, None, {}
        model = self._model
        if shared:
            model, others = _Continued(model, shared), self._positions(prompt, sight)
        elif sight is not None:
            tokens, pixels, mask, others = sight.input_ids, sight.pixel_values, sight.mask, dict(sight.others)
        generated: Generator[tuple[Any, ...]] = generate_step(
            tokens,
            model,
            pixels,
            mask,
            prompt_cache=caches,
            prompt_cache_checkpoint_lengths=list(range(PREFILL_TOKENS, len(prompt) - shared, PREFILL_TOKENS)),
            **{"prefill_step_size": PREFILL_TOKENS, **options},
            **others,
        )
        return generated

    def _positions(self, prompt: list[int], sight: Sight | None) -> dict[str, Any]:
        """Return where the tokens are, for architectures whose pictures take another number of places than tokens."""
        find = getattr(self._model.language_model, "get_rope_index", None)
        if find is None:
            return {}
        grid = None if sight is None else sight.others.get("image_grid_thw")
        positions, deltas = find(mx.array([prompt]), grid)
        return {"position_ids": positions, "rope_deltas": deltas}

    def _new_caches(self) -> list[Any]:
        caches: list[Any] = make_prompt_cache(self._model.language_model)
        return caches


class _Continued:
    """Model with the rest of a prompt, whose first `shared` tokens are already computed."""

    def __init__(self, model: Any, shared: int) -> None:
        self._model = model
        self._shared = shared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def get_input_embeddings(self, tokens: mx.array, *arguments: Any, **options: Any) -> Any:
        """Return them as if for the whole prompt: the layers of Gemma 3n and 4 count from its beginning."""
        found = self._model.get_input_embeddings(tokens, *arguments, **options)
        of_layers = getattr(found, "per_layer_inputs", None)
        if of_layers is not None:
            found.per_layer_inputs = mx.pad(of_layers, [(0, 0), (self._shared, 0), (0, 0), (0, 0)])
        return found


def _with_prompt(prompt: mx.array, processor: Processor) -> Callable[[mx.array, mx.array], Any]:
    """Return the processor with prompt and response as its input: mlx-vlm gives it a part or all of the prompt."""
    calls = 0

    def process(tokens: mx.array, logits: mx.array) -> Any:
        nonlocal calls
        answer = tokens[tokens.size - calls :].astype(mx.uint32)
        calls += 1
        return processor(mx.concatenate([prompt, answer]), logits)

    return process
