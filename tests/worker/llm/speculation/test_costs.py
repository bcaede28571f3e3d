"""Choice of a step's width by the duration of earlier steps."""

from __future__ import annotations

import pytest

from localapi.worker.llm.speculation.speculation import ENOUGH, RETRY, StepCosts

NO_LIMIT = float("inf")
SURE = [1.0 + n for n in range(16)]
"""The gains of guesses that are always right."""


def costs(*steps: tuple[int, float], rows: int = 1) -> StepCosts:
    found = StepCosts()
    for width, seconds in steps:
        for _ in range(ENOUGH):
            found.note(rows, width, seconds)
    return found


@pytest.mark.parametrize(
    ("steps", "gains", "width"),
    [
        ([], SURE, 1),  # nothing is known
        ([(1, 1.0)], SURE, 4),  # hoped for, with care
        ([(1, 1.0), (4, 1.3)], SURE, 8),
        ([(1, 1.0), (4, 1.3), (8, 1.7)], SURE, 16),
        ([(1, 1.0), (4, 4.0)], SURE, 1),
        ([(1, 1.0)], [1.0], 1),
        ([(1, 1.0)], [1.0, 1.02, 1.03], 1),  # guesses that are hardly ever right
        ([(1, 1.0), (8, 8.0), (16, 16.0)], SURE, 1),  # a width costs as much as its tokens
        ([(1, 1.0), (4, 1.2), (16, 8.0)], SURE, 4),
        ([(1, 1.0), (16, 4.0)], [1.0, 1.9, 2.0], 2),
    ],
)
def test_the_width_with_the_most_tokens_a_second_is_taken(
    steps: list[tuple[int, float]], gains: list[float], width: int
) -> None:
    assert costs(*steps).best(gains, 1, longest_seconds=NO_LIMIT) == width


def test_a_step_may_not_keep_other_rows_waiting() -> None:
    known = costs((1, 1.0), (16, 1.6))
    assert known.best(SURE, 1, longest_seconds=0.2) < 8


def test_measurements_of_other_numbers_of_rows_say_nothing() -> None:
    assert costs((1, 1.0), rows=2).best(SURE, 1, longest_seconds=NO_LIMIT) == 1


def test_the_next_wider_step_is_measured_again_now_and_then() -> None:
    known = costs((1, 1.0), (16, 20.0), (8, 20.0), (4, 20.0), (2, 20.0))
    widths = [known.best(SURE, 1, longest_seconds=NO_LIMIT) for _ in range(RETRY)]
    assert widths == [1] * (RETRY - 1) + [2]


def test_a_few_slow_moments_of_the_machine_do_not_count() -> None:
    known = costs((1, 1.0), (4, 1.2))
    for _ in range(3):
        known.note(1, 4, 9.0)
    assert known.seconds(1, 4) == 1.2
