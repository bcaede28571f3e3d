"""The running batch of one model: rows join it, grow by a token in each step, and leave.

Everything that touches mlx-lm's batch API is here, because that API changes between minor versions. All MLX work is
done on the caller's thread, which must be the one that loaded the model (MLX binds arrays to streams of their thread).
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlx_lm.generate import BatchGenerator

from localapi.worker.answer import Answer
from localapi.worker.protocol import Delta, Event, Failed, Finished, Prefill
from localapi.worker.sampling import Drawn, Sampler

FinishReason = Literal["stop", "length"]

PREFILL_TOKENS = 2048
"""Prompt tokens of one request that are processed at once while nobody decodes."""
PREFILL_TOKENS_BESIDE_DECODING = 256
"""The same for all requests together while somebody decodes: every chunk delays the next token of every stream."""
LEAST_PREFILL_TOKENS = 32
PREFILL_REQUESTS = 8


@dataclass(slots=True)
class Row:
    """One request, ready for the batch."""

    id: int
    prompt: list[int]
    """Its tokens; empty once they are the batch's."""
    prompt_tokens: int
    max_tokens: int
    sampler: Sampler
    answer: Answer
    completion_tokens: int = 0
    """All generated tokens, the one that ended the answer included, as vLLM and mlx_lm.server count."""


class Batch:
    """Rows by the batch's own name for them, their uid."""

    def __init__(self, model: Any, *, stop_tokens: Sequence[int], max_rows: int) -> None:
        self._model = model
        self._stop_tokens = [[token] for token in stop_tokens]
        self._max_rows = max_rows
        self._rows: dict[int, Row] = {}
        self._decoding: set[int] = set()
        self._leaving: list[int] = []
        self._generator = self._new_generator()

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._leaving)

    @property
    def room(self) -> int:
        """How many rows may join."""
        return self._max_rows - len(self._rows)

    def has(self, id: int) -> bool:  # noqa: A002  # the protocol's word
        return any(row.id == id for row in self._rows.values())

    def join(self, rows: Sequence[Row], events: list[Event]) -> None:
        """Take rows in; at most `room`."""
        try:
            uids = self._generator.insert(
                [row.prompt for row in rows], [row.max_tokens for row in rows], samplers=[row.sampler for row in rows]
            )
        except Exception as error:
            traceback.print_exception(error)
            events += [_failure(row, error) for row in rows]
            return
        for uid, row in zip(uids, rows, strict=True):
            row.prompt = []
            self._rows[uid] = row

    def leave(self, id: int) -> None:  # noqa: A002
        """Forget a row, before the next step. Unknown ids are ignored."""
        for uid in [uid for uid, row in self._rows.items() if row.id == id]:
            self._drop(uid)
            self._leaving.append(uid)

    def step(self, events: list[Event]) -> None:
        """One decode step, and a chunk of each prompt. MLX computes the next one while the events are on their way."""
        try:
            if self._leaving:
                self._generator.remove(self._leaving)  # type: ignore[no-untyped-call]
                self._leaving.clear()
            if self._rows:
                self._advance(events)
        except Exception as error:  # from MLX or mlx-lm: which row is to blame is not known
            self._fail_all(error, events)

    def _advance(self, events: list[Event]) -> None:
        self._generator.prefill_step_size = chunk = self._chunk()
        prompts, responses = self._generator.next()  # type: ignore[no-untyped-call]
        for prompt in prompts:
            done, total = prompt.progress
            if total > chunk:
                events.append(Prefill(self._rows[prompt.uid].id, done, total))
            if prompt.end_of_prompt:
                self._decoding.add(prompt.uid)
        for response in responses:
            self._take(response, events)

    def _chunk(self) -> int:
        """How many tokens of each prompt the next step processes."""
        if not self._decoding:
            return PREFILL_TOKENS
        prompts = len(self._rows) - len(self._decoding)
        return max(LEAST_PREFILL_TOKENS, PREFILL_TOKENS_BESIDE_DECODING // max(prompts, 1))

    def _take(self, response: Any, events: list[Event]) -> None:
        """Add one token to its row, and end the row where it is the last."""
        uid, reason = response.uid, response.finish_reason
        row = self._rows[uid]
        try:
            text, ended = _grow(row, response.token, reason)
        except Exception as error:  # this row's alone
            events.append(_failure(row, error))
            ended = "stop"
        else:
            if text:
                events.append(Delta(row.id, text))
            if ended is not None:
                events.append(Finished(row.id, ended, row.prompt_tokens, row.completion_tokens))
        if ended is not None:
            self._drop(uid)
            if reason is None:  # the generator does not know that it has ended
                self._leaving.append(uid)

    def _drop(self, uid: int) -> None:
        del self._rows[uid]
        self._decoding.discard(uid)

    def _fail_all(self, error: Exception, events: list[Event]) -> None:
        """What is in the batch cannot be trusted any more; start a new one."""
        traceback.print_exception(error)
        events += [_failure(row, error) for row in self._rows.values()]
        self._rows.clear()
        self._decoding.clear()
        self._leaving.clear()
        # Before the new one: each sets MLX's wired limit, and puts it back.
        self._generator.close()  # type: ignore[no-untyped-call]
        self._generator = self._new_generator()

    def _new_generator(self) -> BatchGenerator:
        return BatchGenerator(
            self._model,
            stop_tokens=self._stop_tokens,
            completion_batch_size=self._max_rows,
            prefill_batch_size=min(PREFILL_REQUESTS, self._max_rows),  # mlx-lm takes the larger of the two for both
            prefill_step_size=PREFILL_TOKENS,
        )


def _grow(row: Row, token: int, reason: FinishReason | None) -> tuple[str, FinishReason | None]:
    """The text that the answer grows by, and why it ends if it does. A stop token is not text."""
    row.completion_tokens += 1
    if isinstance(row.sampler, Drawn) and row.sampler.error is not None:
        raise row.sampler.error
    text = "" if reason == "stop" else row.answer.push(token)
    if reason is not None:
        text += row.answer.finish()
    return text, "stop" if row.answer.stopped else reason


def _failure(row: Row, error: Exception) -> Failed:
    return Failed(row.id, "generation_failed", f"The model failed on this request: {type(error).__name__}: {error}")
