"""Other machines in `GET /status`: the nodes of the cluster, and the peers."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from localapi.api.admin.model_status import Count
from localapi.cluster.protocol import Node
from localapi.runtime.cluster import ClusterWatch, workers_by_node
from localapi.runtime.peers import Peer
from localapi.runtime.registry import Registry


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
    seen_at: Annotated[float | None, Meta(description="Time of its last answer.")]
    models: Count


def describe_peer(peer: Peer) -> PeerReply:
    return PeerReply(
        name=peer.name,
        at=peer.options.host,
        healthy=peer.fault is None if peer.is_known else None,
        error=peer.fault.message if peer.fault is not None else None,
        # rounded to minutes, because it changes with every response
        seen_at=peer.seen_at // 60 * 60 if peer.seen_at is not None else None,
        models=len(peer.models),
    )


def describe_cluster(cluster: ClusterWatch, address: str, registry: Registry) -> ClusterReply:
    workers = workers_by_node(registry.all_instances())
    nodes = []
    for node in cluster.nodes:
        models = list(dict.fromkeys(workers.get(node.name, []))) if node.alive else []
        nodes.append(NodeReply(**msgspec.structs.asdict(node), models=models))
    return ClusterReply(address=address, joined=cluster.joined, error=cluster.error, nodes=nodes)
