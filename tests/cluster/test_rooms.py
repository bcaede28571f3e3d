"""Fitting of workers onto the nodes of a cluster."""

from __future__ import annotations

import pytest

from localapi.cluster.protocol import Node, Requirements
from localapi.cluster.rooms import CannotStart, check_room, has_room_now

pytestmark = pytest.mark.everyday


def node(name: str, *, alive: bool = True, free: float = 4) -> Node:
    return Node(
        id=name,
        name=name,
        address="10.0.0.1",
        alive=alive,
        cpus=4,
        gpus=0,
        memory_bytes=8,
        resources={f"only_{name}": 0.3},
        cpus_free=free,
        gpus_free=0,
        memory_bytes_free=8,
        resources_free={},
    )


NODES = [node("left"), node("right"), node("gone", alive=False)]


@pytest.mark.parametrize(
    ("place", "count"),
    [
        (Requirements(cpus=4), 2),
        (Requirements(cpus=1, spread="strict"), 2),
        (Requirements(cpus=1), 8),
        (Requirements(cpus=2, node="left"), 2),
        (Requirements(cpus=0, resources={"only_left": 0.1}), 3),
        (Requirements(cpus=0), 64),
        (Requirements(cpus=1, node="left", spread="strict"), 1),
    ],
)
def test_what_fits_is_accepted(place: Requirements, count: int) -> None:
    check_room(place, count, NODES)


@pytest.mark.parametrize(
    ("place", "count", "facts"),
    [
        (Requirements(cpus=5), 1, ["5 CPUs", "left: 4 CPUs", "right"]),
        (Requirements(cpus=3), 3, ["3 ranks", "3 CPUs"]),
        (Requirements(cpus=1, spread="strict"), 3, ["3 ranks", "a node of its own"]),
        (Requirements(gpus=1), 1, ["1 GPU"]),
        (Requirements(cpus=3, node="left"), 2, ["2 ranks", "left"]),
        (Requirements(node="gone"), 1, ["gone", "left, right"]),
        (Requirements(resources={"only_gone": 0.1}), 1, ["only_gone"]),
    ],
)
def test_what_can_never_fit_says_what_there_is(place: Requirements, count: int, facts: list[str]) -> None:
    with pytest.raises(CannotStart) as refused:
        check_room(place, count, NODES)
    assert all(fact in str(refused.value) for fact in facts)


def test_there_is_room_now_if_one_node_has_all_of_it_free() -> None:
    busy = [node("left", free=1), node("right", free=1)]
    assert has_room_now(Requirements(cpus=1), busy)
    assert not has_room_now(Requirements(cpus=2), busy)
    assert has_room_now(Requirements(cpus=2), [*busy, node("new")])
