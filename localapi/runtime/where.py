"""Place of a model in one form for every backend, including the parts of a model that is in several places."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from localapi.backends.engine import Vitals
from localapi.backends.options import RunsIn
from localapi.runtime.instance import Instance
from localapi.runtime.peer_instance import PeerInstance
from localapi.runtime.pool import Member, Pool
from localapi.runtime.replicas import Replicas

Host = RunsIn | Literal["peer"]


@dataclass(frozen=True)
class LocationPart:
    """One of several engines, processes or entries of which a model consists."""

    kind: Literal["member", "replica", "rank"]
    name: str
    """Id of a member, or number of a replica or rank."""
    state: str
    at: str | None = None
    """Place, as in `Location`; for a rank on this machine, the address at which the others reach it."""
    pid: int | None = None
    away: str | None = None
    """Reason why it gets no requests."""
    requests: int | None = None
    """Number of requests there, including waiting ones; None for a rank, because all ranks have the same."""
    memory_bytes: int | None = None
    tokens_per_second: float | None = None
    answered: int | None = None
    """Number of requests that a member answered for its pool."""
    passed_over: int | None = None
    """Number of requests for which another member was asked after this one."""
    rests_until: float | None = None
    """Unix time at which a member's rest ends."""


@dataclass(frozen=True)
class ReplicaCount:
    """Bounds on the number of replicas of a model."""

    min: int
    max: int
    held_back: str | None
    """Reason why there are fewer than there should be, for people."""


@dataclass(frozen=True)
class Location:
    """Place where a model runs, or will run once it is loaded."""

    kind: Host
    at: str | None = None
    """Name of the program, host of the upstream, or name of the peer or node; None if it has no name."""
    pid: int | None = None
    """Process on the machine where it runs."""
    parts: tuple[LocationPart, ...] = ()
    replicas: ReplicaCount | None = None
    """Bounds; None for a model without this option."""


def where(instance: Instance) -> Location:
    """Return where an instance's model runs."""
    vitals, options = instance.vitals, instance.options
    if isinstance(instance, PeerInstance):
        return Location("peer", instance.peer)
    node = vitals.node if vitals is not None else None
    replicas = None
    if isinstance(instance.engine, Replicas):
        limits = instance.engine.limits
        replicas = ReplicaCount(limits.min, limits.max, instance.engine.held_back)
    return Location(
        kind=options.runs_in,
        at=node or options.runs_at,
        pid=vitals.pid if vitals is not None else None,
        parts=tuple(_parts(instance)),
        replicas=replicas,
    )


def _parts(instance: Instance) -> list[LocationPart]:
    if isinstance(instance, Pool):
        unknown = [LocationPart("member", name, "failed", away="it is unknown") for name in instance.unknown]
        return [_member(instance, member) for member in instance.members] + unknown
    if isinstance(instance.engine, Replicas):
        replicas = [
            _replica(each.number, "draining" if each.drains else "ready", each.engine.vitals())
            for each in instance.engine.replicas
        ]
        if instance.engine.loading is not None:
            replicas.append(_replica(instance.engine.last_number, "loading", instance.engine.loading.vitals()))
        return replicas
    ranks = [rank for engine in instance.all_supervised for rank in engine.vitals().ranks]
    return [
        LocationPart(
            "rank", str(each.rank), each.state, each.node or each.address, each.pid, memory_bytes=each.memory_bytes
        )
        for each in ranks
    ]


def _member(pool: Pool, member: Member) -> LocationPart:
    candidate, record = pool.candidate(member), pool.record(member)
    return LocationPart(
        kind="member",
        name=member.entry.id,
        state=member.instance.state,
        at=where(member.instance).at,
        away=candidate.away,
        requests=candidate.requests,
        answered=record.answered,
        passed_over=record.passed_over,
        rests_until=round(time.time() + record.rest_seconds, 1) if record.rest_seconds else None,
    )


def _replica(number: int, state: str, vitals: Vitals) -> LocationPart:
    return LocationPart(
        kind="replica",
        name=str(number),
        state=state,
        at=vitals.node,
        pid=vitals.pid,
        requests=vitals.running + vitals.unanswered,
        memory_bytes=vitals.total_bytes,
        tokens_per_second=None if vitals.tokens_per_second is None else round(vitals.tokens_per_second, 1),
    )
