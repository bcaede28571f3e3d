"""The place of a model in one form for every backend, with the parts of a model that is in several places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from localapi.backends.options import RunsIn
from localapi.runtime.instance import Instance
from localapi.runtime.peer_instance import PeerInstance
from localapi.runtime.pool import Pool
from localapi.runtime.replicas import Replicas

Host = RunsIn | Literal["peer"]


@dataclass(frozen=True)
class LocationPart:
    """One of several engines, processes or entries that a model consists of."""

    kind: Literal["member", "replica", "rank"]
    name: str
    """Id of a member, number of a replica or rank."""
    state: str
    at: str | None = None
    """Place, as in `Location`; of a rank on this machine, the address at which the others reach it."""
    pid: int | None = None
    away: str | None = None
    """Reason why it gets no requests."""


@dataclass(frozen=True)
class Location:
    """Place where a model runs, or will run once it is loaded."""

    kind: Host
    at: str | None = None
    """Name of the program, host of the upstream, name of the peer or of the node; None if it has no name."""
    pid: int | None = None
    """Process on the machine where it runs."""
    parts: tuple[LocationPart, ...] = ()


def where(instance: Instance) -> Location:
    """Return where an instance's model runs."""
    vitals, options = instance.vitals, instance.options
    if isinstance(instance, PeerInstance):
        return Location("peer", instance.peer)
    node = vitals.node if vitals is not None else None
    return Location(
        kind=options.runs_in,
        at=node or options.runs_at,
        pid=vitals.pid if vitals is not None else None,
        parts=tuple(_parts(instance)),
    )


def _parts(instance: Instance) -> list[LocationPart]:
    if isinstance(instance, Pool):
        members: list[LocationPart] = []
        for member in instance.members:
            away, at = instance.candidate(member).away, where(member.instance).at
            members.append(LocationPart("member", member.entry.id, member.instance.state, at=at, away=away))
        unknown = [LocationPart("member", name, "failed", away="it is not known") for name in instance.unknown]
        return members + unknown
    if isinstance(instance.engine, Replicas):
        replicas: list[LocationPart] = []
        for each in instance.engine.replicas:
            vitals, state = each.engine.vitals(), "draining" if each.drains else "ready"
            replicas.append(LocationPart("replica", str(each.number), state, at=vitals.node, pid=vitals.pid))
        return replicas
    ranks = [rank for engine in instance.all_supervised for rank in engine.vitals().ranks]
    return [
        LocationPart("rank", str(each.rank), each.state, at=each.node or each.address, pid=each.pid) for each in ranks
    ]
