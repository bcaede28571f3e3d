"""Usage by hours and days: what has grown since the last look, within bounds, and the same after a restart."""

from __future__ import annotations

import time

import pytest

from localapi.observability.counters import Counters, Metric
from localapi.observability.usage_history import MOST_BYTES, MOST_DAYS, MOST_HOURS, UsageHistory, UsageMeter

pytestmark = pytest.mark.everyday

TOKENS = Metric("completion_tokens", "Tokens.")
PACE = Metric("time_per_output_token_seconds", "Time.", bounds=(0.1, 1.0))
NOON = time.mktime((2026, 12, 1, 12, 30, 0, 0, 0, -1))
HOUR = 3600


def test_a_meter_tells_what_has_grown_for_models_and_keys() -> None:
    counters = Counters()
    meter = UsageMeter(counters, PACE.name)
    of_key = counters.of_key("laptop")
    of_key.count("bird", TOKENS, 5)
    of_key.observe("bird", PACE, 0.5)
    of_key.ended("bird", "/v1/chat/completions", 200)
    assert sorted(meter.read()) == [
        ("keys", "laptop", "completion_tokens", 5),
        ("keys", "laptop", "requests", 1),
        ("models", "bird", "answers", 1),
        ("models", "bird", "completion_tokens", 5),
        ("models", "bird", "requests", 1),
        ("models", "bird", "token_seconds", 0.5),
    ]
    assert meter.read() == []
    counters.count("bird", TOKENS, 2)
    assert meter.read() == [("models", "bird", "completion_tokens", 2)]
    counters.keep([])  # the entry is removed from the manifest, and comes back
    counters.count("bird", TOKENS, 1)
    assert meter.read() == [("models", "bird", "completion_tokens", 1)]


def test_hours_and_days_are_sums_and_memory_is_the_largest() -> None:
    history = UsageHistory()
    for minutes, tokens, memory in ((0, 3, 10), (10, 4, 30), (40, 5, 20)):
        counted = [("models", "bird", "completion_tokens", tokens), ("models", "bird", "memory_bytes", memory)]
        history.add(NOON + 60 * minutes, memory, counted)
    assert [each.models["bird"] for each in history.hours] == [
        {"completion_tokens": 7, "memory_bytes": 30},
        {"completion_tokens": 5, "memory_bytes": 20},
    ]
    assert [(each.models["bird"]["completion_tokens"], each.memory_bytes) for each in history.days] == [(12, 30)]
    assert time.localtime(history.days[0].start)[2:5] == (1, 0, 0)


def test_what_two_servers_counted_is_added_up_and_survives_a_file() -> None:
    first, second = UsageHistory(), UsageHistory()
    first.add(NOON, 5, [("keys", "laptop", "requests", 1)])
    second.add(NOON, 9, [("keys", "laptop", "requests", 2)])
    second.add(NOON - HOUR, 0, [("keys", "phone", "requests", 4)])
    both = UsageHistory.load(first.merge(second).dump())
    assert [(each.keys, each.memory_bytes) for each in both.hours] == [
        ({"phone": {"requests": 4}}, 0),
        ({"laptop": {"requests": 3}}, 9),
    ]
    for broken in (b"", b"[]", b'{"hours": 1, "days": []}', b'{"hours": [[1]], "days": []}'):
        with pytest.raises(ValueError, match=r"\w"):
            UsageHistory.load(broken)


def test_periods_and_the_file_have_bounds() -> None:
    history = UsageHistory()
    for hour in range(100 * 24):
        history.add(NOON + hour * HOUR, 0, [("models", f"model-{hour % 5}", "requests", 1)])
    assert (len(history.hours), len(history.days)) == (MOST_HOURS, MOST_DAYS)
    last = history.days[-1].start
    for model in range(3000):
        history.days[-1].add("models", f"{'long' * 10}-{model}", "completion_tokens", 10.0)
        history.days[0].add("models", f"{'long' * 10}-{model}", "completion_tokens", 10.0)
    data = history.dump()
    assert len(data) <= MOST_BYTES
    assert UsageHistory.load(data).days[-1].start == last
