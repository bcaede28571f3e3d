"""Tokens per second over the last seconds, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from localapi.backends import token_rate
from localapi.backends.token_rate import TokenRate

pytestmark = pytest.mark.everyday


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(token_rate.time, "monotonic", lambda: now[0])
    return now


def told(clock: list[float], rate: TokenRate, times: Iterable[tuple[float, int]]) -> TokenRate:
    for at, tokens in times:
        clock[0] = at
        rate.note(tokens)
    return rate


def test_it_is_what_came_over_the_time_since(clock: list[float]) -> None:
    assert told(clock, TokenRate(), [(100, 1), (100.5, 11), (101, 21)]).per_second == pytest.approx(20)


def test_nothing_and_one_token_have_no_speed(clock: list[float]) -> None:
    rate = TokenRate()
    assert rate.per_second == 0
    assert told(clock, rate, [(100, 1)]).per_second == 0


def test_it_falls_while_nothing_comes_and_is_gone_after_the_window(clock: list[float]) -> None:
    rate = told(clock, TokenRate(), [(100, 0), (101, 30)])
    clock[0] = 102
    assert rate.per_second == pytest.approx(15)
    clock[0] = 105
    assert rate.per_second == 0


def test_only_the_last_moments_count(clock: list[float]) -> None:
    slow_then_fast = [(100, 10), (101, 11), (102, 12), (103, 13), (104, 14), (105, 114), (106, 214), (107, 314)]
    assert told(clock, TokenRate(), slow_then_fast).per_second == pytest.approx(100)


def test_an_answer_after_a_pause_begins_anew(clock: list[float]) -> None:
    assert told(clock, TokenRate(), [(100, 10), (101, 20), (110, 21), (111, 31)]).per_second == pytest.approx(10)


def test_steps_that_bring_no_token_change_nothing(clock: list[float]) -> None:
    assert told(clock, TokenRate(), [(100, 0), (100.5, 0), (101, 10)]).per_second == pytest.approx(10)


@pytest.mark.parametrize(
    ("seconds", "tokens", "known"),
    [(0.1, 200, False), (0.2, 20, True), (0.2, 19, False), (0.9, 19, False), (1.1, 5, True)],
)
def test_a_few_tokens_or_a_moment_have_no_speed(clock: list[float], seconds: float, tokens: int, known: bool) -> None:
    assert (told(clock, TokenRate(), [(0, 0), (seconds, tokens)]).per_second > 0) == known
