"""Evictions for a load, as tables: sizes are small numbers, and every holding is named by a letter."""

from __future__ import annotations

from typing import Any

import pytest

from localapi.runtime.eviction import (
    Evict,
    Holding,
    Need,
    Phase,
    Refusal,
    Refuse,
    Reserve,
    Wait,
    plan_room,
    plan_shrink,
)

pytestmark = pytest.mark.everyday

BUDGET = 10


def held(name: str, size: int = 4, **facts: Any) -> Holding:
    return Holding(name=name, size=size, **facts)


def need(size: int = 4, **facts: Any) -> Need:
    return Need(**{"name": "new", "least": size, "most": size, **facts})


def by_letter(*holdings: Holding) -> dict[str, Holding]:
    return {each.name: each for each in holdings}


BUSY: dict[str, Any] = {"leases": 1}
PINNED: dict[str, Any] = {"protected": True}
ENDING: dict[str, Any] = {"phase": Phase.ENDING}
LOADING: dict[str, Any] = {"phase": Phase.LOADING}
UNUSED: dict[str, Any] = {"used": False}
RETIRED: dict[str, Any] = {"retired": True}


@pytest.mark.parametrize(
    ("holdings", "wanted", "plan"),
    [
        # Room
        ([], need(10), Reserve(10)),
        ([held("a")], need(6), Reserve(6)),
        ([held("a", **PINNED)], need(least=2, most=9), Reserve(6)),  # what it took at most cannot be had
        # The least recently used one, and no more than it takes
        ([held("a", last_used=2), held("b", last_used=1)], need(4), Evict(("b",))),
        ([held("a", last_used=2), held("b", last_used=1)], need(8), Evict(("b", "a"))),
        ([held("a", last_used=1, **BUSY), held("b", last_used=2)], need(4), Evict(("b",))),
        ([held("a", last_used=1, **PINNED), held("b", last_used=2)], need(4), Evict(("b",))),
        ([held("a", last_used=1, **LOADING), held("b", last_used=2)], need(4), Evict(("b",))),
        ([held("a", last_used=1, **UNUSED), held("b", last_used=2)], need(4), Evict(("a",))),
        # Nobody is evicted in vain
        ([held("a", **BUSY), held("b")], need(8), Wait()),
        ([held("a", 8, **BUSY)], need(4), Wait()),
        ([held("a", 8, **LOADING)], need(4), Wait()),
        ([held("a", 8, **RETIRED, **BUSY)], need(4), Wait()),
        # Who ends already is waited for
        ([held("a", 8, **ENDING)], need(4), Wait()),
        ([held("a", 4, **ENDING), held("b", 4)], need(4), Wait()),
        ([held("a", 4, **ENDING), held("b", 6)], need(8), Evict(("b",))),
        # Busy models become idle, in the order in which they would be evicted
        ([held("a", 8, **BUSY)], need(4, impatient=True), Wait(("a",))),
        (
            [held("a", last_used=2, **BUSY), held("b", last_used=1, **BUSY)],
            need(4, impatient=True),
            Wait(("b",)),
        ),
        (
            [held("a", last_used=2, **BUSY), held("b", last_used=1)],
            need(8, impatient=True),
            Wait(("b", "a")),
        ),
        ([held("a", 6, **PINNED), held("b", 4, **LOADING)], need(4, impatient=True), Wait()),
        # The queue
        ([], need(4, is_next=False), Wait()),
        ([], need(11, is_next=False), Refuse(Refusal.NEVER_FITS, 11, 10, ())),
        # What can never fit
        ([], need(11), Refuse(Refusal.NEVER_FITS, 11, 10, ())),
        ([held("a", **PINNED), held("b")], need(7), Refuse(Refusal.NEVER_FITS, 7, 6, ("a",))),
        ([held("new", 6)], need(6), Refuse(Refusal.NEVER_FITS, 6, 4, ("new",))),  # a warm swap
        ([held("new", 6, **RETIRED)], need(6), Wait()),
        ([held("new", 4), held("b", 4)], need(4), Evict(("b",))),  # the old one answers on
    ],
)
def test_a_load_that_a_request_waits_for(
    holdings: list[Holding], wanted: Need, plan: Reserve | Evict[str] | Wait[str] | Refuse[str]
) -> None:
    assert plan_room(by_letter(*holdings), wanted, BUDGET) == plan


@pytest.mark.parametrize(
    ("holdings", "plan"),
    [
        ([], Reserve(6)),
        ([held("a", 4)], Reserve(6)),
        ([held("a", 6)], Evict(("a",))),  # it was used, and is not now
        ([held("a", 6, **UNUSED)], Refuse(Refusal.NOT_WORTH_IT, 6, 4, ("a",))),
        ([held("a", 6, **BUSY)], Refuse(Refusal.NOT_WORTH_IT, 6, 4, ("a",))),
        ([held("a", 6, **LOADING)], Refuse(Refusal.NOT_WORTH_IT, 6, 4, ("a",))),
        ([held("a", 6, **PINNED)], Refuse(Refusal.NEVER_FITS, 6, 4, ("a",))),
        ([held("a", 6, **RETIRED, **BUSY)], Wait()),  # its place will be free
        ([held("a", 6, **ENDING)], Wait()),
        ([held("a", 3, **RETIRED, **ENDING), held("b", 6, **UNUSED)], Refuse(Refusal.NOT_WORTH_IT, 6, 4, ("a", "b"))),
        ([held("a", 3, **UNUSED), held("b", 6)], Evict(("b",))),
    ],
)
def test_a_load_that_nobody_waits_for(
    holdings: list[Holding], plan: Reserve | Evict[str] | Wait[str] | Refuse[str]
) -> None:
    assert plan_room(by_letter(*holdings), need(6, speculative=True), BUDGET) == plan


@pytest.mark.parametrize(
    ("holdings", "victims"),
    [
        ([held("a", 5), held("b", 5)], ()),
        ([held("a", 6, last_used=2), held("b", 6, last_used=1)], ("b",)),
        ([held("a", 11, last_used=2), held("b", 11, last_used=1)], ("b", "a")),
        ([held("a", 6, **BUSY), held("b", 6, last_used=1)], ("b",)),
        ([held("a", 20, **BUSY), held("b", 6)], ("b",)),  # it helps, though it is not enough
        ([held("a", 12, **PINNED)], ()),
        ([held("a", 6, **ENDING), held("b", 6)], ()),
        ([held("a", 12, **RETIRED)], ()),
    ],
)
def test_models_that_have_outgrown_the_budget(holdings: list[Holding], victims: tuple[str, ...]) -> None:
    assert plan_shrink(by_letter(*holdings), BUDGET) == victims
