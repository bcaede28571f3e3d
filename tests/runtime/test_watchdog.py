"""The watchdog's verdicts, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from localapi.backends.engine import Vitals
from localapi.runtime.watchdog import COMPUTING_FACTOR, judge

pytestmark = pytest.mark.everyday

STALL = 100.0


def watch(
    vitals: Callable[[float], Vitals],
    *,
    cpu_share: float | None = 0.0,
    limit: float | None = STALL,
    seconds: float = 10 * STALL,
) -> tuple[float, str | None]:
    """Look every second, until the engine has to be ended: after how many seconds, and why."""
    record = None
    for second in range(int(10 * STALL)):
        cpu_seconds = None if cpu_share is None else cpu_share * second
        seen = replace(vitals(second), cpu_seconds=cpu_seconds)
        record, fault = judge(record, seen, limit, float(second))
        if fault is not None:
            return second, fault
    return 10 * STALL, None


SILENT = Vitals(running=1, silent_since=0.0)
LOADING = Vitals(loading=True, silent_since=0.0)
IDLE = Vitals()
BUSY = Vitals(running=1)


@pytest.mark.parametrize(
    ("vitals", "cpu_share", "limit", "after", "why"),
    [
        pytest.param(SILENT, 0.0, STALL, STALL, "did nothing", id="silent without computing"),
        pytest.param(SILENT, 0.002, STALL, STALL, "did nothing", id="silent while threads look around"),
        pytest.param(SILENT, 0.5, STALL, COMPUTING_FACTOR * STALL, "in one step", id="silent while computing"),
        pytest.param(SILENT, None, STALL, COMPUTING_FACTOR * STALL, "in one step", id="silent, computing unknown"),
        pytest.param(SILENT, 0.0, None, None, None, id="silent without a limit"),
        pytest.param(LOADING, 0.5, STALL, None, None, id="loading"),
        pytest.param(LOADING, 0.0, STALL, STALL, "did nothing", id="loading and hanging"),
        pytest.param(IDLE, 0.0, STALL, None, None, id="idle"),
        pytest.param(IDLE, 0.2, STALL, None, None, id="idle, computing a little"),
        pytest.param(IDLE, 0.9, STALL, STALL, "with nothing to do", id="idle and computing"),
        pytest.param(IDLE, 0.9, None, None, None, id="idle and computing without a limit"),
        pytest.param(IDLE, None, STALL, None, None, id="idle, computing unknown"),
        pytest.param(BUSY, 0.9, STALL, None, None, id="at work, and never telling of steps"),
    ],
)
def test_when_an_engine_is_ended(
    vitals: Vitals, cpu_share: float | None, limit: float | None, after: float | None, why: str | None
) -> None:
    ended, fault = watch(lambda _: vitals, cpu_share=cpu_share, limit=limit)
    if after is None or why is None:
        assert fault is None
    else:
        assert why in (fault or "")
        assert after <= ended <= 1.5 * after


def test_a_step_ends_a_silence() -> None:
    _, fault = watch(lambda now: Vitals(running=1, silent_since=now // 50 * 50))
    assert fault is None


def test_work_ends_the_time_of_an_engine_that_computes_with_nothing_to_do() -> None:
    _, fault = watch(lambda now: Vitals(running=1, silent_since=now) if now % 50 == 0 else IDLE, cpu_share=1.0)
    assert fault is None
