"""Find room for workers on the nodes of a cluster, in Ray's terms."""

from __future__ import annotations

from typing import Any, Final

import ray
from ray._private.state import available_resources_per_node  # Ray has no public way as of 2.60
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from localapi.cluster.protocol import Node, Requirements
from localapi.cluster.rooms import check_room, named, room
from localapi.system.threads import aside

NEXT_TO_NOTHING: Final = {"CPU": 0.001}
"""Smallest amount to reserve, because Ray refuses to reserve nothing."""
STANDARD: Final = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


async def nodes_now() -> list[Node]:
    """Return the nodes of the cluster, including those that died recently."""
    listed: list[dict[str, Any]] = await aside(ray.nodes)
    free: dict[str, dict[str, float]] = await aside(available_resources_per_node)
    nodes = [described(node, free.get(node["NodeID"], {})) for node in listed]
    return sorted(nodes, key=lambda node: (not node.alive, node.name, node.id))


def described(node: dict[str, Any], free: dict[str, float]) -> Node:
    """Return Ray's description of a node and its free resources."""
    totals: dict[str, float] = node["Resources"]
    address: str = node["NodeManagerAddress"]
    own = {name: count for name, count in totals.items() if name not in STANDARD and not name.startswith("node:")}
    given = node["NodeName"]
    return Node(
        id=node["NodeID"],
        name=given if given and given != address else node["NodeManagerHostname"],
        address=address,
        alive=node["Alive"],
        cpus=totals.get("CPU", 0),
        gpus=totals.get("GPU", 0),
        memory_bytes=int(totals.get("memory", 0)),
        resources=own,
        cpus_free=free.get("CPU", 0),
        gpus_free=free.get("GPU", 0),
        memory_bytes_free=int(free.get("memory", 0)),
        resources_free={name: free.get(name, 0) for name in own},
    )


def scheduling(place: Requirements, nodes: list[Node], seat: tuple[PlacementGroup, int] | None) -> dict[str, Any]:
    """Return the options of an actor with this place. Raise CannotStart if no node can ever hold it.

    `seat` is its part of a reservation.
    """
    strategy: object = "SPREAD" if place.spread else "DEFAULT"
    if seat is not None:
        strategy = PlacementGroupSchedulingStrategy(*seat)
    else:
        check_room(place, 1, nodes)
        if place.node is not None:
            fitting = [node for node in named(place, nodes) if room(place, node)]
            strategy = NodeAffinitySchedulingStrategy(fitting[0].id, soft=False)
    return {
        "num_cpus": place.cpus,
        "num_gpus": place.gpus,
        "memory": place.memory_bytes or None,
        "resources": place.resources or None,
        "scheduling_strategy": strategy,
        "max_restarts": 0,
        "max_task_retries": 0,
    }


def bundles(place: Requirements, count: int, nodes: list[Node]) -> dict[str, Any]:
    """Return the options of a placement group for this many workers. Raise CannotStart if they can never fit."""
    check_room(place, count, nodes)
    each = {"CPU": place.cpus, "GPU": place.gpus, "memory": place.memory_bytes, **place.resources}
    bundle = {name: amount for name, amount in each.items() if amount}
    strategy = "PACK"
    if place.spread:
        strategy = "STRICT_SPREAD" if place.spread == "strict" else "SPREAD"
    options: dict[str, Any] = {
        "bundles": [bundle or NEXT_TO_NOTHING] * count,
        "strategy": strategy,
    }
    if place.node is not None:
        roomiest = max(named(place, nodes), key=lambda node: room(place, node))
        options["bundle_label_selector"] = [{"ray.io/node-id": roomiest.id}] * count
    return options
