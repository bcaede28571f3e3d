"""A pool is one name for several entries: this module chooses members for requests, and lets failing members rest.

A pool loads nothing, and its members can still be used by their own names: it requests the same leases as everybody
else. `routing` carries out what is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from localapi.backends.choice import Candidate, ConversationMemory, ranked
from localapi.backends.engine import Vitals
from localapi.backends.pool import PoolOptions
from localapi.errors import (
    ApiError,
    LoadFailed,
    ModelBusy,
    ModelUnavailable,
    NoMember,
    UpstreamFailed,
    UpstreamUnavailable,
)
from localapi.manifest import Entry
from localapi.runtime.instance import Instance
from localapi.runtime.memory import Memory
from localapi.runtime.queue import Queue, Ticket
from localapi.runtime.states import StateName
from localapi.system.in_flight import InFlight
from localapi.system.timer import growing_pause

FIRST_REST_SECONDS: Final = 2.0
LONGEST_REST_SECONDS: Final = 60.0
UNHEALTHY_SECONDS: Final = 5.0
"""Time after which an unhealthy member is expected to be healthy again."""


@dataclass(frozen=True)
class Member:
    """One member at this moment."""

    entry: Entry
    instance: Instance
    queue: Queue


@dataclass
class Record:
    """A pool's record of one member."""

    instance: Instance
    """Instance that the record is about; another instance starts a new record."""
    answered: int = 0
    """Requests that the member answered for the pool."""
    passed_over: int = 0
    """Number of requests that went to another member after this one had been asked."""
    failures: int = 0
    """Number of consecutive failures, each after the rest that followed the previous one."""
    rests_until: float = 0.0
    """End of the rest, monotonic time."""
    reason: str = ""
    """Reason why it rests, for people."""

    @property
    def rest_seconds(self) -> float:
        """Seconds of the rest that are left; 0 if there is none."""
        return max(0.0, self.rests_until - time.monotonic())


def rest_seconds(failures: int) -> float:
    """Return how long a member rests after this many consecutive failures."""
    return growing_pause(failures, FIRST_REST_SECONDS, LONGEST_REST_SECONDS)


class Pool(Instance):
    """Instance of a pool. Its state is that of its members; it is leased by counting requests."""

    def __init__(
        self,
        name: str,
        options: PoolOptions,
        *,
        since_revision: int,
        memory: Memory,
        members: Callable[[Sequence[str]], list[Member]],
    ) -> None:
        super().__init__(name, options, since_revision=since_revision, memory=memory)
        self.pool_options = options
        self.in_flight = InFlight()
        self.tickets: set[Ticket] = set()
        """Tickets of the requests in flight."""
        self._members = members
        self._records: dict[str, Record] = {}
        self._memory_of_conversations = ConversationMemory()

    # What others see of an instance

    @property
    def state(self) -> StateName:
        """Best state of any member."""
        if self.retired:
            return "closed"
        states = {each.instance.state for each in self.members}
        found: tuple[StateName, ...] = ("ready", "loading", "unloaded")
        return next((state for state in found if state in states), "failed")

    @property
    def vitals(self) -> Vitals:
        """Load of the pool, and its health: whether any member can answer."""
        candidates = [self.candidate(each) for each in self.members]
        reasons = "; ".join(f"{each.name}: {each.away}" for each in candidates if each.away is not None)
        healthy = any(each.away is None for each in candidates)
        running = sum(each.attempt is not None and each.attempt[1].begun for each in self.tickets)
        return Vitals(
            running=running,
            unanswered=len(self.tickets) - running,
            memory_bytes=0,
            healthy=healthy,
            reason=None if healthy else reasons,
        )

    @property
    def max_batch(self) -> int | None:
        """Always None: requests are queued at the members."""
        return None

    @property
    def queued(self) -> int:
        """Always 0: requests are queued at the members."""
        return 0

    @property
    def leases(self) -> int:
        """Number of requests answered through the pool."""
        return self.in_flight.count

    @contextmanager
    def counted(self, ticket: Ticket) -> Iterator[None]:
        """Count a request while it is answered through the pool."""
        with self.in_flight.one():
            self.tickets.add(ticket)
            try:
                yield
            finally:
                self.tickets.discard(ticket)

    async def idle(self) -> None:
        """Wait until no request is answered through the pool."""
        await self.in_flight.none()

    def begin_loading(self) -> None:
        """Do nothing: the members are loaded by their own entries."""

    def follow(self, entry: Entry, *, by_hand: bool = False) -> None:
        """Apply an edit of the pool at once."""
        super().follow(entry, by_hand=by_hand)
        assert isinstance(entry.options, PoolOptions)  # noqa: S101  # its identity is that of a pool
        self.options = self.pool_options = entry.options

    # Members

    @property
    def members(self) -> list[Member]:
        """Existing members, in manifest order."""
        return self._members(self.pool_options.of)

    @property
    def unknown(self) -> list[str]:
        """Missing members, in manifest order: their peer is away, or no longer has them."""
        return [name for name in self.pool_options.of if not self._members([name])]

    def record(self, member: Member) -> Record:
        """Return what is remembered of a member; nothing once it has another instance."""
        record = self._records.get(member.entry.id)
        if record is None:
            record = self._records[member.entry.id] = Record(member.instance)
        elif record.instance is not member.instance:
            record.instance, record.failures, record.rests_until = member.instance, 0, 0.0
        return record

    def candidate(self, member: Member) -> Candidate:
        """Return what the choice needs to know of a member."""
        occupancy = member.queue.occupancy
        away, seconds = self._away(member)
        return Candidate(
            name=member.entry.id,
            requests=occupancy.queued + occupancy.admitted + occupancy.sent,
            slots=occupancy.slots,
            is_loaded=member.instance.state == "ready",
            is_full=occupancy.is_full,
            away=away,
            away_seconds=seconds,
        )

    def _away(self, member: Member) -> tuple[str | None, float]:
        """Return why a member should get no request, and for how long; None if it may get one."""
        record, instance, vitals = self.record(member), member.instance, member.instance.vitals
        if record.rest_seconds > 0:
            return record.reason, record.rest_seconds
        if instance.backoff.seconds_left > 0:
            return instance.last_error or "it failed repeatedly", instance.backoff.seconds_left
        if vitals is not None and not vitals.healthy:
            return vitals.reason or "it is unhealthy", UNHEALTHY_SECONDS
        if not instance.gate.is_open:
            return "it is being replaced or unloaded", 0.0
        return None, 0.0

    def order(self, keys: Sequence[bytes]) -> list[Member]:
        """Return the members in the order in which a request should try them. `keys` are those of its conversation."""
        members = {each.entry.id: each for each in self.members}
        candidates = ranked(
            [self.candidate(each) for each in members.values()],
            self.pool_options.choose,
            remembered=self._memory_of_conversations.place_of(keys),
            spill_over_at=self.pool_options.spill_over_at,
        )
        return [members[each.name] for each in candidates]

    # What becomes of requests

    def note_answer(self, member: Member, keys: Sequence[bytes]) -> None:
        """Record that a member answers."""
        record = self.record(member)
        record.answered += 1
        record.failures, record.rests_until = 0, 0.0
        self._memory_of_conversations.note(keys, member.entry.id)

    def note_failure(self, member: Member, error: ApiError, *, rests: bool) -> float:
        """Record that a member was skipped. Return how long it rests; 0 if it does not."""
        record = self.record(member)
        record.passed_over += 1
        if rests and record.rest_seconds == 0:  # several requests that fail in one outage count once
            record.failures += 1
            record.rests_until = time.monotonic() + rest_seconds(record.failures)
            record.reason = error.message
        return record.rest_seconds


def nobody(pool: Entry, failures: dict[str, ApiError], rests: list[float]) -> ApiError:
    """Return the error of a request that no member has answered.

    `rests` are the seconds for each member, 0 for none.
    """
    waits = [seconds for seconds in rests if seconds > 0]
    waits += [each.retry_after_seconds for each in failures.values() if each.retry_after_seconds is not None]
    seconds = max(1.0, min(waits, default=1.0))
    retry = f"Try again in {seconds:.0f} s."
    if failures and all(isinstance(error, ModelBusy) for error in failures.values()):
        return ModelBusy(f"All members of {pool.id} are busy. {retry}", retry_after_seconds=seconds)
    reasons = " ".join(f"{name}: {error.message}" for name, error in failures.items())
    return NoMember(
        f"No member of {pool.id} can answer. {reasons or 'Their peers are away, or no longer have them.'}",
        beside=failures,
        unnamed=f"No member of {pool.id} can answer. {retry}",
        retry_after_seconds=seconds,
    )


def is_worth_another_try(error: ApiError) -> bool:
    """Return True if a member may answer the same request when asked again at once."""
    away = isinstance(error, ModelUnavailable) and not isinstance(error, LoadFailed)
    return away or isinstance(error, UpstreamUnavailable | UpstreamFailed)
