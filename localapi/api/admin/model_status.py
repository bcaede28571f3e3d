"""Models in `GET /status`: state, place, load, replicas, members and replacement of each."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from localapi.backends.engine import Vitals
from localapi.manifest import Entry, fingerprint
from localapi.reload.swaps import Swap
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry
from localapi.runtime.where import where
from localapi.worker.protocol import Loading

Count = Annotated[int, Meta(ge=0)]


class ProgressReply(Struct, kw_only=True):
    """Progress of a load, in bytes; 0 if nothing is counted."""

    phase: str
    done: int
    total: int


class SwapReply(Struct, kw_only=True):
    """Replacement of a model: it is loading, or it failed to load and is retried while the old one answers."""

    state: Literal["loading", "failed"]
    backend: str
    path: str | None
    identity: str
    error: str | None
    failures: int
    next_try_at: float | None
    progress: ProgressReply | None


class RequestsReply(Struct, kw_only=True):
    """Requests in the engine, tokens of the long prompts that it processes, and audio that it transcribes."""

    running: Count
    waiting: Count
    prompt_tokens_done: Count
    prompt_tokens_total: Count
    sound_seconds_done: Annotated[float, Meta(ge=0)]
    sound_seconds_total: Annotated[float, Meta(ge=0)]


class PartReply(Struct, kw_only=True):
    """One of the members, replicas or ranks of a model."""

    kind: Literal["member", "replica", "rank"]
    name: str
    state: str
    at: Annotated[str | None, Meta(description="Where it runs; for a rank, the address at which the others reach it.")]
    pid: int | None
    away: Annotated[str | None, Meta(description="Reason why it gets no requests.")]
    requests: Annotated[Count | None, Meta(description="Requests there, including waiting ones; null for ranks.")]
    memory_bytes: int | None
    tokens_per_second: Annotated[float, Meta(ge=0)] | None
    answered: Annotated[Count | None, Meta(description="Requests that a member answered for the pool.")]
    passed_over: Annotated[
        Count | None, Meta(description="Requests for which another member was asked after this one.")
    ]
    rests_until: Annotated[float | None, Meta(description="Time when a member's rest ends.")]


class ReplicasReply(Struct, kw_only=True):
    """Bounds on the number of replicas of a model."""

    min: int
    max: int
    held_back: Annotated[str | None, Meta(description="Reason why there are fewer than there should be.")]


class PlaceReply(Struct, kw_only=True):
    """Place where a model runs, or will run once it is loaded."""

    kind: Literal["server", "worker", "program", "upstream", "peer", "node", "members"]
    at: Annotated[str | None, Meta(description="Program, host of the upstream, name of the peer or of the node.")]
    pid: Annotated[int | None, Meta(description="Process on the machine where it runs.")]
    parts: list[PartReply]
    replicas: ReplicasReply | None


class SpeculationReply(Struct, kw_only=True):
    """Tokens computed together with the previous one, since the model was loaded."""

    forced: Annotated[Count, Meta(description="Tokens forced by a schema or a grammar.")]
    proposed: Annotated[Count, Meta(description="Guessed tokens that the model checked.")]
    accepted: Annotated[Count, Meta(description="Guessed tokens that the model confirmed.")]


class InstanceReply(Struct, kw_only=True):
    """Model in memory, or on its way there."""

    id: str
    state: str
    pinned: bool
    leases: Count
    since_revision: int
    place: PlaceReply
    requests: RequestsReply | None
    healthy: bool | None
    unhealthy_reason: str | None
    tokens_per_second: Annotated[float, Meta(ge=0)] | None
    speculation: SpeculationReply | None
    latency_seconds: Annotated[float, Meta(ge=0)] | None
    ready_since: float | None
    loads: int
    last_step_age_seconds: float | None
    worker_deaths: int
    restarts: int
    failures_in_a_row: int
    cooling_down_until: float | None
    last_error: str | None
    progress: ProgressReply | None


class VariantReply(Struct, kw_only=True):
    """Additional name of a model, with its own defaults and locks."""

    id: str
    aliases: list[str]
    description: str | None


class ModelReply(InstanceReply, kw_only=True):
    """A model of the manifest."""

    kind: str
    backend: str
    peer: Annotated[str | None, Meta(description="Other localapi that has the model.")]
    path: str | None
    download_bytes: Annotated[
        int | None, Meta(description="Approximate bytes to download, if files are missing and their size is known.")
    ]
    description: str | None
    aliases: list[str]
    pinned_by: Literal["manifest", "hand"] | None
    identity: str
    serving: str
    keys: dict[str, str]
    waiting: Count
    memory_bytes: int | None
    swap: SwapReply | None
    variants: list[VariantReply]


def describe_model(entry: Entry, registry: Registry, swap: Swap | None) -> ModelReply:
    instance = registry.instance(entry.id)
    said = registry.snapshot.manifest.said
    path = said.get((entry.kind.name, entry.id, "path")) or said.get((entry.kind.name, entry.id, "url"))
    state = registry.downloads.state_of(entry.options, instance)
    by_hand: Literal["hand"] | None = "hand" if entry.id in registry.pinned_by_hand else None
    return ModelReply(
        **{**msgspec.structs.asdict(describe_instance(instance)), "state": state},
        download_bytes=registry.downloads.bytes_of(entry.options) if state == "not_downloaded" else None,
        kind=entry.kind.name,
        backend=entry.options.backend_name,
        peer=entry.peer,
        path=path.text if path else None,
        description=entry.options.description,
        aliases=list(entry.options.aliases),
        pinned_by="manifest" if entry.options.pin else by_hand,
        identity=fingerprint(entry.identity),
        serving=fingerprint(entry.settings),
        keys=dict(entry.keys),
        waiting=registry.queues[entry.id].occupancy.waiting,
        memory_bytes=memory_of(registry, instance),
        swap=_swap(swap) if swap else None,
        variants=[
            VariantReply(id=each.id, aliases=list(each.options.aliases), description=each.options.description)
            for each in entry.variants
        ],
    )


def memory_of(registry: Registry, instance: Instance) -> int | None:
    """Return the memory that the budget counts, otherwise what the engine reports; None if unknown."""
    counted = registry.memory.of(instance)
    if counted is None and instance.vitals is not None:
        return instance.vitals.total_bytes
    return counted


def _swap(swap: Swap) -> SwapReply:
    return SwapReply(
        state=swap.state,
        backend=swap.entry.options.backend_name,
        path=swap.entry.identity.options.get("path"),
        identity=fingerprint(swap.entry.identity),
        error=swap.error,
        failures=swap.failures,
        next_try_at=swap.next_try_at,
        progress=_progress(swap.progress),
    )


def _progress(progress: Loading | None) -> ProgressReply | None:
    return ProgressReply(phase=progress.text, done=progress.done, total=progress.total) if progress else None


def describe_instance(instance: Instance) -> InstanceReply:
    """Return the state of one instance."""
    vitals = instance.vitals
    last_step_at = vitals.last_step_at if vitals else None
    rate = vitals.tokens_per_second if vitals else None
    guessed = vitals.speculated if vitals else None
    return InstanceReply(
        id=instance.name,
        state=instance.state,
        pinned=instance.pinned,
        leases=instance.leases,
        since_revision=instance.since_revision,
        place=msgspec.convert(where(instance), PlaceReply, from_attributes=True),
        requests=_requests(vitals) if vitals else None,
        healthy=vitals.healthy if vitals else None,
        unhealthy_reason=vitals.reason if vitals and not vitals.healthy else None,
        tokens_per_second=None if rate is None else round(rate, 1),
        speculation=msgspec.convert(guessed, SpeculationReply, from_attributes=True) if guessed else None,
        latency_seconds=vitals.latency_seconds if vitals else None,
        ready_since=instance.ready_since,
        loads=instance.loads,
        last_step_age_seconds=None if last_step_at is None else time.monotonic() - last_step_at,
        worker_deaths=instance.worker_deaths,
        restarts=instance.restarts,
        failures_in_a_row=instance.backoff.failures,
        cooling_down_until=instance.backoff.paused_until,
        last_error=instance.last_error,
        progress=_progress(instance.progress),
    )


def _requests(vitals: Vitals) -> RequestsReply:
    return RequestsReply(
        running=vitals.running,
        waiting=vitals.unanswered,
        prompt_tokens_done=vitals.prompt_tokens_done,
        prompt_tokens_total=vitals.prompt_tokens_total,
        sound_seconds_done=round(vitals.sound_seconds_done, 1),
        sound_seconds_total=round(vitals.sound_seconds_total, 1),
    )
