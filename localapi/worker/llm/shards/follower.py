"""Following rank: it executes the plans of rank 0, and answers no requests."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import mlx.core as mx
from mlx_lm.sample_utils import greedy_sampler

from localapi.worker.llm.batch import Batch
from localapi.worker.llm.row import FinishReason, RequestTotals, Row
from localapi.worker.llm.shards.group import SharedSampler, SharedTokens
from localapi.worker.llm.shards.plans import PlannedRow, Plans
from localapi.worker.protocol import Event, Loaded, Request


class FollowedRow(Row):
    """Row of which only the tokens are known here. Rank 0 decides whether it ends before them."""

    def grow(self, token: int, reason: FinishReason | None, events: list[Event]) -> bool:
        """Return True if the model itself ends the row here."""
        return reason is not None


class Follower:
    """Following rank. See `worker.model.Model`."""

    waiting = 0
    tokens = 0

    def __init__(self, batch: Batch, plans: Plans, group: mx.distributed.Group) -> None:
        self.loaded = Loaded()
        self._batch = batch
        self._plans = plans
        self._share = SharedTokens(group)
        self._samplers: WeakValueDictionary[int, SharedSampler] = WeakValueDictionary()
        """Samplers by number. Each lives as long as its rows, as on rank 0."""

    @property
    def busy(self) -> bool:
        return bool(self._plans)

    def take(self, request: Request) -> None:
        """Refuse: requests go to rank 0."""
        raise AssertionError(request)

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        """Do nothing: rank 0 decides which rows leave."""

    def step(self) -> list[Event]:
        plan = self._plans.take()
        for planned in plan.joins:
            row = self._row(planned)
            self._batch.insert(row)
            if row.totals.cached_tokens != planned.cached_tokens:  # the ranks would compute different prompts
                raise RuntimeError(
                    f"the prefix cache has {row.totals.cached_tokens} tokens of a prompt, that of rank 0 has "
                    f"{planned.cached_tokens}"
                )
        if plan.chunk:
            self._batch.replay(plan.leaving, plan.chunk)
        if not self._batch.busy:
            mx.clear_cache()
        return []

    def save_some(self) -> bool:
        return False

    def _row(self, planned: PlannedRow) -> Row:
        first, *copies = [self._followed(planned, sampler) for sampler in (planned.sampler, *planned.copies)]
        first.boundaries, first.copies = planned.boundaries, copies
        return first

    def _followed(self, planned: PlannedRow, sampler: int) -> Row:
        answer: Any = None
        return FollowedRow(
            totals=RequestTotals(0, len(planned.prompt)),
            choice=0,
            prompt=planned.prompt,
            max_tokens=planned.max_tokens,
            reach=0,
            length=0,
            sampler=self._sampler(sampler),
            processors=[],
            answer=answer,
            parts=None,
        )

    def _sampler(self, number: int) -> SharedSampler:
        found = self._samplers.get(number)
        if found is None:
            found = self._samplers[number] = SharedSampler(number, greedy_sampler, self._share)
        return found
