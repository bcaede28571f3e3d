"""Fit workers onto the nodes of a cluster. This module knows nothing of Ray."""

from __future__ import annotations

import math
from typing import Final

from localapi.cluster.protocol import Node, Requirements
from localapi.system.byte_sizes import readable

MANY: Final = 1000
"""Number of workers without requirements that a node can hold."""


class CannotStart(Exception):
    """A worker cannot be started. The message is for people."""


def check_room(place: Requirements, count: int, nodes: list[Node]) -> None:
    """Raise CannotStart if the cluster can never hold this many workers at once."""
    strict = count > 1 and place.spread == "strict"
    spaces = [room(place, node) for node in named(place, nodes)]
    if sum(min(space, 1) if strict else space for space in spaces) >= count:
        return
    if count == 1:
        raise CannotStart(f"No node of the cluster has {wanted(place)}. {has(place, nodes)}")
    apart = ", each on a node of its own" if strict else ""
    raise CannotStart(f"The cluster can never hold {count} ranks with {wanted(place)} each{apart}. {has(place, nodes)}")


def named(place: Requirements, nodes: list[Node]) -> list[Node]:
    """Return the live nodes that match. Raise CannotStart if there are none."""
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
    return min((math.floor(there / amount + 1e-9) for amount, there in taken if amount), default=MANY)


def has_room_now(place: Requirements, nodes: list[Node]) -> bool:
    """Return whether a matching node has the free resources for such a worker."""
    return any(
        place.cpus <= node.cpus_free
        and place.gpus <= node.gpus_free
        and place.memory_bytes <= node.memory_bytes_free
        and all(count <= node.resources_free.get(name, 0) for name, count in place.resources.items())
        for node in named(place, nodes)
    )


def has(place: Requirements, nodes: list[Node]) -> str:
    """Describe the resources of the matching nodes, for people."""
    return f"Available: {'; '.join(f'{node.name}: {offered(node)}' for node in named(place, nodes))}."


def wanted(place: Requirements) -> str:
    """Describe the resources of a worker, for people."""
    return _amounts(place.cpus, place.gpus, place.memory_bytes, place.resources)


def offered(node: Node) -> str:
    """Describe the resources of a node, for people."""
    return _amounts(node.cpus, node.gpus, node.memory_bytes, node.resources)


def _amounts(cpus: float, gpus: float, memory_bytes: int, resources: dict[str, float]) -> str:
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'s' * (gpus != 1)}")
    if memory_bytes:
        parts.append(f"{readable(memory_bytes)} of memory")
    parts += [f"{count:g} {name}" for name, count in resources.items()]
    return ", ".join(parts)
