"""The running batch of a model that sees or hears: that of text, with prompts that have images and recordings.

Such prompts are computed in pieces between the steps of the rows that are being decoded. After that their rows are rows
like all others. All prompts are computed one at a time: some architectures compute several at once wrongly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import mlx.core as mx
from mlx_lm.generate import GenerationBatch, _merge_caches
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.llm.batch import LEAST_PREFILL_TOKENS, Batch, failure
from localapi.worker.llm.row import Row
from localapi.worker.protocol import Event, Prefill
from localapi.worker.vlm.language import Language, MediaPrompt


@dataclass
class _Reading:
    """A row whose prompt is being computed, or waits for that."""

    uid: int
    row: Row
    prompt: MediaPrompt | None = None
    """None: not begun."""


class MediaBatch(Batch):
    """Rows, by their uids. The model is a `Language`."""

    _model: Language

    def __init__(self, model: Language, *, continues_media: bool, **options: Any) -> None:
        """`continues_media`: whether computed tokens with media can be gone on from. `options`: as of `Batch`."""
        self._readings: deque[_Reading] = deque()
        self._shifts: dict[int, int] = {}
        """Shifts of the rows that have one, as in `Language`."""
        self._keys: dict[int, list[int]] = {}
        """The prompts of rows with media, as the prefix cache knows them; empty if it must not."""
        self._continues_media = continues_media
        super().__init__(model, prefill_requests=1, **options)

    def insert(self, row: Row) -> None:
        """Add a row. One with media waits for its prompt to be computed."""
        if row.sight is None:
            super().insert(row)
            return
        uid = self._new_uid(row)
        self._readings.append(_Reading(uid, row))

    def _new_uid(self, row: Row) -> int:
        uid = self._generator._uid_count
        self._generator._uid_count += 1
        self._rows[uid], self._computed[uid] = row, 0
        self._keys[uid] = row.sight.key if self._continues_media else []
        if row.top_logprobs is not None:
            self._reporting.add(uid)
        return uid

    def _advance(self, chunk: int, events: list[Event]) -> None:
        if self._readings:
            if len(self._rows) > len(self._decoding) + len(self._readings):  # a text is being processed, too
                chunk = max(LEAST_PREFILL_TOKENS, chunk // 2)
            with mx.stream(self._generator.stream):
                self._read(self._readings[0], chunk, events)
        super()._advance(chunk, events)

    def _read(self, reading: _Reading, chunk: int, events: list[Event]) -> None:
        """Compute a piece of a prompt; after the last one, begin to decode."""
        uid, row = reading.uid, reading.row
        try:
            if reading.prompt is None:
                reading.prompt = self._begin(uid, row)
                return
            self._compute(reading.prompt, uid, row, chunk, events)
            if reading.prompt.left == 0:
                self._readings.popleft()
                self._decode(uid, row, reading.prompt)
        except Exception as error:  # from the architecture; the other rows are not to blame
            events.append(failure(row, error))
            self.leave(row.id)

    def _begin(self, uid: int, row: Row) -> MediaPrompt:
        """Take in the media, and what the cache has of the prompt."""
        key, sight = self._keys[uid], row.sight
        # Media are embedded with their whole prompt: what is left must be text alone.
        hit = self.prefixes.fetch(key) if key else None
        start, caches = (hit.length, hit.caches) if hit and hit.length >= sight.end else (0, self._model.make_cache())
        row.totals.cached_tokens = max(row.totals.cached_tokens, start)
        prompt = MediaPrompt(self._model, row.prompt, sight, caches, start)
        prompt.look()
        return prompt

    def _compute(self, prompt: MediaPrompt, uid: int, row: Row, chunk: int, events: list[Event]) -> None:
        """Compute up to so many tokens of a prompt. Pause after the media, which other questions may be about."""
        key, end, tokens = self._keys[uid], row.sight.end, min(chunk, prompt.left)
        worth = bool(key) and self.prefixes.needs_boundaries and prompt.done < end
        if worth:
            tokens = min(tokens, end - prompt.done)
        if tokens:
            started = perf_counter()
            prompt.advance(tokens)
            self._learn_speed(tokens, perf_counter() - started)
            if worth and prompt.done == end:
                self.prefixes.keep(key[:end], prompt.caches)
        if prompt.left:
            events.append(Prefill(row.id, prompt.done, len(row.prompt)))

    def _decode(self, uid: int, row: Row, prompt: MediaPrompt) -> None:
        """Begin the answers to a prompt of which only the last step is left."""
        copies, row.copies = row.copies, []
        for each in copies:
            self._join(self._new_uid(each), each, prompt.copy())
        self._join(uid, row, prompt)

    def _join(self, uid: int, row: Row, prompt: MediaPrompt) -> None:
        generation = GenerationBatch(
            prompt.last_step,
            [uid],
            mx.array(row.prompt[-1:]),
            prompt.caches,
            [row.prompt[:-1]],
            [row.sampler],
            greedy_sampler,
            [list(row.processors)],
            [self._generator._default_stop_sequences],
            [row.max_tokens],
        )
        generation.prompt_cache = _merge_caches([generation.prompt_cache])  # type: ignore[no-untyped-call]
        if prompt.shift:
            self._shifts[uid] = prompt.shift
        self._generator._generation_batch.extend(generation)
        self._decoding.add(uid)

    def _remove(self) -> None:
        for reading in list(self._readings):
            if reading.uid in self._leaving:
                self._readings.remove(reading)
                del self._keys[reading.uid]
        super()._remove()

    def _keep(self, uid: int, tokens: list[int], caches: list[Any]) -> None:
        key = self._keys.pop(uid, None)
        if key is None:
            super()._keep(uid, tokens, caches)
        elif key:
            super()._keep(uid, [*key, *tokens[len(key) :]], caches)

    def _drop(self, uid: int) -> None:
        super()._drop(uid)
        self._shifts.pop(uid, None)

    def _new_generator(self) -> Any:
        self._readings.clear()
        self._shifts.clear()
        self._keys.clear()
        generator = super()._new_generator()
        rows = generator._generation_batch

        def decode(tokens: mx.array, cache: list[Any]) -> Any:
            return self._model(tokens, cache, [self._shifts.get(uid, 0) for uid in rows.uids])

        rows.model = decode
        return generator
