"""Guesses from a row's own text."""

from __future__ import annotations

import pytest

from localapi.worker.llm.speculation.lookup import FIRST_RATES, HitRates, Lookup


def lookup(prompt: list[int], *added: int) -> Lookup:
    found = Lookup(prompt, HitRates())
    for token in added:
        found.add(token)
    return found


@pytest.mark.parametrize(
    ("prompt", "added", "guess"),
    [
        ([1, 2, 3, 4, 5, 6], [1, 2, 3], [4, 5, 6, 1]),
        ([1, 2, 3, 4, 5, 6, 1, 2], [3], [4, 5, 6, 1]),
        ([1, 2, 3, 4, 1, 2, 3, 5], [1, 2, 3], [5, 1, 2, 3]),  # the latest
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5], [6, 1, 2, 3]),  # and goes on
        ([7, 7, 7], [7], [7, 7, 7, 7]),  # beyond the end of what is known
        ([1, 2, 1, 2, 1], [2], [1, 2, 1, 2]),
        ([1, 2, 3, 4], [1, 2, 9], []),
        ([1, 2, 3, 4], [1, 2, 3, 9], []),  # a wrong guess is given up
        ([], [5, 5], []),
        ([], [], []),
    ],
)
def test_what_followed_the_same_tokens_is_expected_again(prompt: list[int], added: list[int], guess: list[int]) -> None:
    found = lookup(prompt, *added)
    assert found.guess(4) == guess
    assert found.repeats == bool(guess)
    assert len(found.chances(4)) == len(guess)


def test_chances_fall_with_each_token_and_rise_with_the_length_of_a_right_run() -> None:
    early, late = lookup(list(range(20)), 1, 2, 3), lookup(list(range(20)), *range(1, 14))
    assert early.chances(5) == sorted(early.chances(5), reverse=True)
    assert late.chances(1)[0] > early.chances(1)[0]


def test_wrong_guesses_are_remembered_and_those_about_forced_tokens_are_not() -> None:
    rates = HitRates()
    for forced, expected in ((True, pytest.approx(FIRST_RATES[0])), (False, pytest.approx(FIRST_RATES[0] * 0.9))):
        found = Lookup([1, 2, 3, 4], rates)
        for token in (1, 2, 3):
            found.add(token)
        found.add(9, forced=forced)
        assert rates.rate(0) == expected
