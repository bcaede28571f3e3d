"""`GET /status`: the full state of the server, for people and for `localapi check`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from quart import Blueprint, Response

import localapi
from localapi.api.admin.attempt_status import AttemptReply, describe_attempt
from localapi.api.admin.model_status import Count, InstanceReply, ModelReply, describe_instance, describe_model
from localapi.api.operation import JSON, Operation, Operations
from localapi.cluster.protocol import Node
from localapi.http.replies import json_reply
from localapi.reload.reloader import Reloader
from localapi.runtime.cluster import ClusterWatch, workers_by_node
from localapi.runtime.peers import Peer
from localapi.runtime.registry import Registry
from localapi.system.folders import WorkingFolder


class FileReply(Struct, kw_only=True):
    path: str
    sha256: str


class ManifestReply(Struct, kw_only=True):
    """Files from which the manifest was read."""

    folder: str
    files: list[FileReply]
    profile: Annotated[str | None, Meta(description="Profile merged over the manifest.")]


class MemoryReply(Struct, kw_only=True):
    """Memory budget, and the models that wait for room in it."""

    budget_bytes: int | None
    used_bytes: int
    waiting: list[str]


class UsageReply(Struct, kw_only=True):
    """Usage of an API key since the server started."""

    key: Annotated[str, Meta(description="Name of the key.")]
    counts: Annotated[dict[str, float], Meta(description="Counts as in /metrics: requests, prompt_tokens and so on.")]


class NodeReply(Node, frozen=True, kw_only=True):
    """Machine of the cluster, with the models on it."""

    models: list[str]


class ClusterReply(Struct, kw_only=True):
    """The cluster that the manifest names."""

    address: str
    joined: bool
    error: str | None
    nodes: list[NodeReply]


class PeerReply(Struct, kw_only=True):
    """Another localapi whose models are offered here."""

    name: str
    at: str
    healthy: Annotated[bool | None, Meta(description="Null until it has been asked.")]
    error: Annotated[str | None, Meta(description="Reason why it cannot be used.")]
    seen_at: Annotated[float | None, Meta(description="Time of its last response.")]
    models: Count


class StatusReply(Struct, kw_only=True):
    """Full state of the server."""

    version: str
    started_at: float
    now: float
    revision: int
    manifest: ManifestReply
    server: dict[str, str]
    last_attempt: AttemptReply | None
    last_change: AttemptReply | None
    reading_since: float | None
    preparing: bool
    warnings: list[str]
    captures: Annotated[bool, Meta(description="True if the latest requests are kept.")]
    usage: list[UsageReply]
    memory: MemoryReply
    cluster: ClusterReply | None
    peers: list[PeerReply]
    models: list[ModelReply]
    retiring: list[InstanceReply]


def routes(describe: Callable[[], StatusReply]) -> Blueprint:
    """Return the endpoint."""
    blueprint = Blueprint("status", __name__)

    @blueprint.get("/status")
    async def status() -> Response:
        return json_reply(describe())

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/status"): Operation(summary="The full state of the server.", content={JSON: StatusReply})
}


def describe(
    registry: Registry,
    reloader: Reloader,
    warnings: list[str],
    folder: WorkingFolder,
    cluster: ClusterWatch,
    *,
    profile: str | None = None,
    captures: bool = False,
    usage: Mapping[tuple[str, str], float] | None = None,
) -> StatusReply:
    """Return the full state of the server. Times are Unix seconds."""
    snapshot = registry.snapshot
    memory = registry.memory
    return StatusReply(
        version=localapi.__version__,
        started_at=registry.started_at,
        now=time.time(),
        revision=snapshot.revision,
        manifest=ManifestReply(
            folder=str(folder.path),
            files=[FileReply(path=str(file.path), sha256=file.sha256) for file in snapshot.manifest.files],
            profile=profile,
        ),
        server=dict(snapshot.manifest.keys_of_server),
        last_attempt=describe_attempt(reloader.last_attempt) if reloader.last_attempt else None,
        last_change=describe_attempt(reloader.last_change) if reloader.last_change else None,
        reading_since=reloader.reading_since,
        preparing=reloader.preparing,
        warnings=warnings,
        captures=captures,
        usage=_usage(usage or {}),
        memory=MemoryReply(budget_bytes=memory.budget, used_bytes=memory.used, waiting=memory.waiting),
        cluster=_cluster(cluster, cluster.address, registry) if cluster.address is not None else None,
        peers=[_peer(peer) for peer in registry.peers.by_name.values()],
        models=[describe_model(entry, registry, reloader.swaps.of(entry.id)) for entry in registry.entries.values()],
        retiring=[describe_instance(instance) for instance in registry.retiring],
    )


def _usage(by_key: Mapping[tuple[str, str], float]) -> list[UsageReply]:
    found: dict[str, dict[str, float]] = {}
    for (key, name), amount in by_key.items():
        found.setdefault(key, {})[name] = round(amount, 3)
    return [UsageReply(key=key, counts=counts) for key, counts in found.items()]


def _peer(peer: Peer) -> PeerReply:
    return PeerReply(
        name=peer.name,
        at=peer.options.host,
        healthy=peer.fault is None if peer.is_known else None,
        error=peer.fault.message if peer.fault is not None else None,
        # rounded to minutes, because it changes with every response
        seen_at=peer.seen_at // 60 * 60 if peer.seen_at is not None else None,
        models=len(peer.models),
    )


def _cluster(cluster: ClusterWatch, address: str, registry: Registry) -> ClusterReply:
    workers = workers_by_node(registry.all_instances())
    nodes = []
    for node in cluster.nodes:
        models = list(dict.fromkeys(workers.get(node.name, []))) if node.alive else []
        nodes.append(NodeReply(**msgspec.structs.asdict(node), models=models))
    return ClusterReply(address=address, joined=cluster.joined, error=cluster.error, nodes=nodes)
