"""The running batch of one model: in each step, rows join, grow by one or more tokens, and leave.

Everything that uses mlx-lm's batch API is here, because that API changes between minor versions. All MLX work is done
on the caller's thread, which must be the one that loaded the model (MLX binds arrays to streams of their thread).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.llm.constrained.grammar import GrammarStuck
from localapi.worker.llm.decode_step import DecodeStep
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.prompt_boundaries import segments
from localapi.worker.llm.row import Row
from localapi.worker.llm.sampling import token_logprob
from localapi.worker.llm.speculation.speculation import Speculation
from localapi.worker.protocol import Event, Failed, Prefill

if TYPE_CHECKING:
    from localapi.worker.llm.shards.plans import Lead

PREFILL_TOKENS = 256 if mx.default_device().type == mx.cpu else 2048
"""Prompt tokens of one request that are processed at once while no row decodes.

MLX's masked attention also computes the half that it discards, which on a CPU costs more than fewer steps save: 2,048
tokens of a small model took 2.1 s at once and 1.3 s in parts.
"""
LEAST_PREFILL_TOKENS = 16
PREFILL_REQUESTS = 8
SMOOTHING = 0.3
"""Weight of the newest measurement of the prefill speed."""


class Batch:
    """Rows, by the uid that mlx-lm assigns.

    If several processes hold the model together, each has a batch, and all do the same: the followers `replay` what the
    first one's `lead` sent them. Nothing here may depend on anything else, such as the time.
    """

    def __init__(
        self,
        model: Any,
        *,
        stop_tokens: Sequence[int],
        max_rows: int,
        max_stall_seconds: float,
        prefixes: PrefixCache,
        token_bytes: Callable[[int], bytes],
        lead: Lead | None = None,
        speculation: Speculation | None = None,
        prefill_requests: int = PREFILL_REQUESTS,
    ) -> None:
        """Create a batch; with `speculation`, rows may compute several tokens in a step.

        Not if other processes take part. `prefill_requests` is the maximum number of prompts processed at once.
        """
        self.prefixes = prefixes
        self._lead = lead
        self.speculation = speculation
        self._model = model
        self._stop_tokens = [[token] for token in stop_tokens]
        self._max_rows = max_rows
        self._max_stall_seconds = max_stall_seconds
        self._prefill_requests = min(prefill_requests, max_rows)  # mlx-lm takes the larger of the two for both
        self._token_bytes = token_bytes
        self.tokens = 0
        """Number of tokens generated so far."""
        self._rows: dict[int, Row] = {}
        self._computed: dict[int, int] = {}
        """Number of a row's tokens that were computed before it joined."""
        self._decoding: set[int] = set()
        self._reporting: set[int] = set()
        """Rows that report log probabilities."""
        self._leaving: list[int] = []
        self._ended: list[tuple[int, list[int], list[Any]]] = []
        """The uids, tokens and caches of rows that have ended, which may serve the next turn."""
        self._seconds_per_token = 0.0
        """Prefill speed, measured while other rows decode."""
        self._generator = self._new_generator()

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._leaving or self._ended)

    @property
    def room(self) -> int:
        """Number of rows that may join."""
        return self._max_rows - len(self._rows) - sum(len(row.copies) for row in self._rows.values())

    def reaches(self) -> list[int]:
        """Return the tokens for which memory is reserved, for each row and for those that will join later."""
        return [row.reach for first in self._rows.values() for row in (first, *first.copies)]

    def join(self, row: Row, events: list[Event]) -> None:
        """Add a row, and its copies as soon as its prompt is computed."""
        if self._lead is not None:
            self._lead.join(row, self.insert)
            return
        try:
            self.insert(row)
        except Exception as error:
            traceback.print_exception(error)
            events.append(failure(row, error))
            self.leave(row.id)

    def leave(self, id: int) -> None:  # noqa: A002
        """Remove a request's rows before the next step. Unknown ids are ignored."""
        for uid in [uid for uid, row in self._rows.items() if row.id == id]:
            self._drop(uid)
            self._leaving.append(uid)

    def step(self, events: list[Event]) -> None:
        """Do one decode step, and a chunk of each prompt. MLX computes the next step while the events are being sent.

        Raise MLX's errors if other processes take part: they cannot be told to start again, so all must end.
        """
        if not self.busy:
            return
        chunk = self._chunk()
        try:
            if self._lead is not None:
                self._lead.send(self._leaving, chunk)
            self._step(chunk, events)
        except Exception as error:  # from MLX or mlx-lm, which do not report which row is to blame
            if self._lead is not None:
                raise
            self._fail_all(error, events)

    def replay(self, leaving: Iterable[int], chunk: int) -> None:
        """Do a step as the first process does it, with the rows that were inserted there."""
        for uid in leaving:
            if uid in self._rows:  # it ended by itself on the first process: by a stop string, for example
                self._drop(uid)
            self._leaving.append(uid)
        self._step(chunk, [])

    def _step(self, chunk: int, events: list[Event]) -> None:
        self._keep_ended()
        if self._leaving:
            self._remove()
        if self._rows:
            self._advance(chunk, events)

    def insert(self, row: Row) -> None:
        """Start with the longest cached prefix of the prompt; pause where its cache is worth storing."""
        self._keep_ended()
        hit = self.prefixes.fetch(row.prompt)
        start = hit.length if hit else 0
        row.totals.cached_tokens = max(row.totals.cached_tokens, start)
        last = len(row.prompt) - 1
        ends = [*row.boundaries, last] if row.copies else row.boundaries
        copies = []
        if start == last:
            copies, row.copies = row.copies, []
        self._insert_from(row, start, hit.caches if hit else None, segments(row.prompt, start, ends))
        for copy in copies:
            self.insert(copy)

    def _insert_from(self, row: Row, start: int, caches: list[Any] | None, parts: list[list[int]]) -> None:
        [uid] = self._generator.insert_segments(
            [parts],
            [row.max_tokens],
            caches=[caches],  # type: ignore[list-item]  # None: an empty one is made
            all_tokens=[row.prompt[:start]],
            samplers=[row.sampler],
            logits_processors=[list(row.processors)],
        )
        self._rows[uid] = row
        self._computed[uid] = start
        if row.top_logprobs is not None:
            self._reporting.add(uid)

    def _keep_ended(self) -> None:
        """Store what ended rows computed, now that their last events are sent: MLX first completes another token."""
        ended, self._ended = self._ended, []
        for uid, tokens, caches in ended:
            self._keep(uid, tokens, caches)

    def _remove(self) -> None:
        """Remove rows that have left."""
        caches = self._generator.remove(self._leaving, return_prompt_caches=True)  # type: ignore[no-untyped-call]
        self._leaving.clear()
        for uid, (kept, tokens) in caches.items():
            self._keep(uid, tokens, kept)

    def _advance(self, chunk: int, events: list[Event]) -> None:
        self._generator.prefill_step_size = chunk
        processing = len(self._rows) > len(self._decoding)
        self._generator._generation_batch.undisturbed = not processing
        if self._decoding and processing:
            with self._generator.stats() as stats:
                prompts, responses = self._generator.next()  # type: ignore[no-untyped-call]
            self._learn_speed(stats.prompt_tokens, stats.prompt_time)
        else:
            prompts, responses = self._generator.next()  # type: ignore[no-untyped-call]
        for prompt in prompts:
            self._on_prompt(prompt, chunk, events)
        for response in responses:
            self._take(response, events)

    def _learn_speed(self, tokens: int, seconds: float) -> None:
        if tokens:
            measured = seconds / tokens
            known = self._seconds_per_token
            # A slower speed counts immediately, so that no row has to wait; a faster one may be chance.
            self._seconds_per_token = max(measured, (1 - SMOOTHING) * known + SMOOTHING * measured)

    def _chunk(self) -> int:
        """Return how many tokens of each prompt the next step processes: as many as decoding rows can wait for."""
        if not self._decoding:
            return PREFILL_TOKENS
        prompts = max(1, min(len(self._rows) - len(self._decoding), self._prefill_requests))
        speed = self._seconds_per_token
        tokens = int(self._max_stall_seconds / speed) if speed else LEAST_PREFILL_TOKENS * 4
        return min(PREFILL_TOKENS, max(LEAST_PREFILL_TOKENS, tokens // prompts))

    def _on_prompt(self, prompt: Any, chunk: int, events: list[Event]) -> None:
        """Report and store the computed part of a prompt; start the copies when only its last token is left."""
        uid, row = prompt.uid, self._rows[prompt.uid]
        done, total = prompt.progress
        if total > chunk:
            events.append(Prefill(row.id, done + self._computed[uid], total + self._computed[uid]))
        if prompt.end_of_prompt:
            self._decoding.add(uid)
        elif prompt.end_of_segment:
            at = done + self._computed[uid]
            if at in row.boundaries and not self.prefixes.covers(row.prompt[:at]):
                caches, _ = self._generator.extract_cache([uid])[uid]  # type: ignore[no-untyped-call]
                self.prefixes.put(row.prompt[:at], caches)
            if at == len(row.prompt) - 1 and row.copies:
                self._start_copies(uid, row)

    def _start_copies(self, uid: int, row: Row) -> None:
        copies, row.copies = row.copies, []
        for copy in copies:
            caches, tokens = self._generator.extract_cache([uid])[uid]  # type: ignore[no-untyped-call]
            self._insert_from(copy, len(tokens), caches, [row.prompt[-1:]])

    def _take(self, response: Any, events: list[Event]) -> None:
        """Add one token to its row, and end the row if it is the last."""
        uid, reason = response.uid, response.finish_reason
        if reason is not None:  # stored in any case: processes that only know the row's tokens store the same
            self._ended.append((uid, response.all_tokens, response.prompt_cache))
        row = self._rows.get(uid)
        if row is None:  # another response to the same request failed in this step
            return
        try:
            if row.top_logprobs is not None and reason != "stop":
                row.logprobs.append(
                    token_logprob(response.token, response.logprobs, row.top_logprobs, self._token_bytes)
                )
            self.tokens += 1
            ended = row.grow(response.token, reason, events)
        except Exception as error:  # only this request fails
            events.append(failure(row, error))
            self.leave(row.id)
            return
        if ended:
            self._drop(uid)
            if reason is None:  # the generator does not know that it has ended
                self._leaving.append(uid)

    def _keep(self, uid: int, tokens: list[int], caches: list[Any]) -> None:
        """Store the caches of a row that leaves. They may serve the next turn."""
        self.prefixes.keep(tokens, caches)

    def _drop(self, uid: int) -> None:
        del self._rows[uid], self._computed[uid]
        self._decoding.discard(uid)
        self._reporting.discard(uid)

    def _fail_all(self, error: Exception, events: list[Event]) -> None:
        """Fail all rows and start a new batch, because the state of this one is unknown."""
        traceback.print_exception(error)
        first_rows = {row.id: row for row in self._rows.values()}
        events += [failure(row, error) for row in first_rows.values()]
        self._rows.clear()
        self._computed.clear()
        self._decoding.clear()
        self._reporting.clear()
        self._leaving.clear()
        self._ended.clear()
        # Before the new one, because each sets MLX's wired limit and restores it.
        self._generator.close()  # type: ignore[no-untyped-call]
        self._generator = self._new_generator()

    def _new_generator(self) -> BatchGenerator:
        generator = BatchGenerator(
            self._model,
            stop_tokens=self._stop_tokens,
            completion_batch_size=self._max_rows,
            prefill_batch_size=self._prefill_requests,
            prefill_step_size=PREFILL_TOKENS,
        )
        step = DecodeStep.empty(self._model, greedy_sampler)
        step.reporting = self._reporting
        step.ends = {token for [token] in self._stop_tokens}
        step.speculation = self.speculation
        generator._generation_batch = step
        return generator


def failure(row: Row, error: Exception) -> Failed:
    """Return the end of a request on which the model failed, or whose form cannot be kept."""
    if isinstance(error, GrammarStuck):
        return Failed(
            row.id, "invalid_request", f"The response cannot be continued in its form: {error}", row.form_param
        )
    return Failed(row.id, "generation_failed", f"The model failed on this request: {type(error).__name__}: {error}")
