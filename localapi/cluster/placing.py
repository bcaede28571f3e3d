"""Where workers fit on the nodes of a cluster, in Ray's terms."""

from __future__ import annotations

from typing import Any, Final

import ray
from ray._private.state import available_resources_per_node  # Ray has no public way as of 2.60
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from localapi.cluster.protocol import Node, Requirements
from localapi.system.byte_sizes import readable
from localapi.system.threads import aside

MANY: Final = 1000
"""How many workers that take nothing a node can hold."""
STANDARD: Final = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


class CannotStart(Exception):
    """A worker cannot be started. The message is for people."""


async def nodes_now() -> list[Node]:
    """Return the nodes of the cluster, also those that died lately."""
    listed: list[dict[str, Any]] = await aside(ray.nodes)
    free: dict[str, dict[str, float]] = await aside(available_resources_per_node)
    nodes = [described(node, free.get(node["NodeID"], {})) for node in listed]
    return sorted(nodes, key=lambda node: (not node.alive, node.name, node.id))


def described(node: dict[str, Any], free: dict[str, float]) -> Node:
    """Return what Ray says of a node, and of what is free there."""
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
    """Return the options of an actor that is placed so. Raise CannotStart if no node can ever hold it.

    `seat`: the room that was reserved for it, and which part of that.
    """
    strategy: object = "SPREAD" if place.spread else "DEFAULT"
    if seat is not None:
        strategy = PlacementGroupSchedulingStrategy(*seat)
    else:
        fitting = [node for node in named(place, nodes) if room(place, node)]
        if not fitting:
            raise CannotStart(f"No node of the cluster has {wanted(place)}. {has(place, nodes)}")
        if place.node is not None:
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
    """Return the options of a placement group with so many workers. Raise CannotStart if they can never fit."""
    strict = place.spread == "strict"
    rooms = {node.id: room(place, node) for node in named(place, nodes)}
    if sum(min(each, 1) if strict else each for each in rooms.values()) < count:
        apart = ", each on a node of its own" if strict else ""
        raise CannotStart(
            f"The cluster can never hold {count} ranks with {wanted(place)} each{apart}. {has(place, nodes)}"
        )
    each = {"CPU": place.cpus, "GPU": place.gpus, "memory": place.memory_bytes, **place.resources}
    bundle = {name: amount for name, amount in each.items() if amount}
    options: dict[str, Any] = {
        "bundles": [bundle] * count,
        "strategy": "STRICT_SPREAD" if strict else "SPREAD" if place.spread else "PACK",
    }
    if place.node is not None:
        chosen = max(rooms, key=rooms.__getitem__)
        options["bundle_label_selector"] = [{"ray.io/node-id": chosen}] * count
    return options


def named(place: Requirements, nodes: list[Node]) -> list[Node]:
    """Return the nodes that live and may be meant. Raise CannotStart if there are none."""
    alive = [node for node in nodes if node.alive]
    found = [node for node in alive if place.node in (None, node.name, node.address, node.id)]
    if not found:
        known = ", ".join(node.name for node in alive) or "none"
        raise CannotStart(f"The cluster has no node {place.node!r}; its nodes are {known}.")
    return found


def room(place: Requirements, node: Node) -> int:
    """Return how many such workers an empty node can hold."""
    taken = [(place.cpus, node.cpus), (place.gpus, node.gpus), (place.memory_bytes, node.memory_bytes)]
    taken += [(count, node.resources.get(name, 0)) for name, count in place.resources.items()]
    return min((int(there / amount) for amount, there in taken if amount), default=MANY)


def has_room_now(place: Requirements, nodes: list[Node]) -> bool:
    """Return whether a node that may be meant has what such a worker takes, and nobody else has it."""
    return any(
        place.cpus <= node.cpus_free
        and place.gpus <= node.gpus_free
        and place.memory_bytes <= node.memory_bytes_free
        and all(count <= node.resources_free.get(name, 0) for name, count in place.resources.items())
        for node in named(place, nodes)
    )


def has(place: Requirements, nodes: list[Node]) -> str:
    """Return what the nodes that may be meant have, for people."""
    return f"There are: {'; '.join(f'{node.name}: {offered(node)}' for node in named(place, nodes))}."


def wanted(place: Requirements) -> str:
    """Return what a worker takes, for people."""
    return _amounts(place.cpus, place.gpus, place.memory_bytes, place.resources)


def offered(node: Node) -> str:
    """Return what a node has, for people."""
    return _amounts(node.cpus, node.gpus, node.memory_bytes, node.resources)


def _amounts(cpus: float, gpus: float, memory_bytes: int, resources: dict[str, float]) -> str:
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'s' * (gpus != 1)}")
    if memory_bytes:
        parts.append(f"{readable(memory_bytes)} of memory")
    parts += [f"{count:g} {name}" for name, count in resources.items()]
    return ", ".join(parts)
