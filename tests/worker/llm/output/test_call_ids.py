"""Ids of calls: what a family's template demands, kept if it fits, and otherwise replaced by the same everywhere."""

from __future__ import annotations

import pytest

from localapi.worker.llm.output.call_ids import ANY, CallIds, NameAndNumber, NineCharacters

pytestmark = pytest.mark.everyday

FOREIGN = [
    "call_0123456789abcdef01234567",
    "toolu_01A09q90qw90lq917835lq9",
    "call_0_1",
    "123",
    "漢字漢字漢字漢字漢",
    "\ud800",
    "a b c d e",
]


@pytest.mark.parametrize("shape", [ANY, NineCharacters(), NameAndNumber()])
def test_a_new_id_fits_and_is_kept(shape: CallIds) -> None:
    taken: set[str] = set()
    for _ in range(3):
        made = shape.new("f", taken)
        assert made not in taken
        assert shape.fitting(made, "f", 5) == made
        taken.add(made)


@pytest.mark.parametrize("call_id", FOREIGN)
def test_a_foreign_id_always_becomes_the_same_one_that_fits(call_id: str) -> None:
    nine = NineCharacters().fitting(call_id, "f", 0)
    assert (len(nine), nine.isascii(), nine.isalnum()) == (9, True, True)
    assert nine == NineCharacters().fitting(call_id, "g", 3)
    assert NameAndNumber().fitting(call_id, "f", 3) == "functions.f:3"
    assert ANY.fitting(call_id, "f", 3) == call_id


def test_different_foreign_ids_stay_different() -> None:
    assert len({NineCharacters().fitting(each, "f", 0) for each in FOREIGN}) == len(FOREIGN)
