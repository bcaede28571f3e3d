"""Usage of models and API keys by hour and day, kept across restarts: numbers, never contents.

Amounts are taken from the counters once a minute, so a request costs nothing. They are stored in one small file in the
user's state folder, written every few minutes and at the end. What is too old, or exceeds the size, is dropped, the
oldest first.
"""

from __future__ import annotations

import json
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from localapi.observability.counters import NO_MODEL, REQUESTS, Counters

MOST_HOURS: Final = 7 * 24
MOST_DAYS: Final = 90
MOST_BYTES: Final = 400_000
"""Maximum size of the file."""
ANSWERS: Final = "answers"
"""Number of responses whose speed is known."""
PACE: Final = "token_seconds"
"""Sum of their mean times between two tokens: tokens per second are answers / token_seconds."""
MEMORY: Final = "memory_bytes"
"""Maximum memory observed."""

Amounts = dict[str, float]
Amount = tuple[str, str, str, float]
"""Table, name of the model or key, name of the count, and the amount by which it has grown."""


@dataclass
class Period:
    """An hour or a day."""

    start: int
    """Unix time."""
    memory_bytes: float = 0
    """Maximum memory of all models together."""
    models: dict[str, Amounts] = field(default_factory=dict)
    """Amounts by model and name of the count."""
    keys: dict[str, Amounts] = field(default_factory=dict)
    """Amounts by API key and name of the count."""

    def add(self, table: str, name: str, what: str, amount: float) -> None:
        """Add to an amount; for memory, keep the maximum."""
        amounts = getattr(self, table).setdefault(name, {})
        before = amounts.get(what, 0)
        amounts[what] = max(before, amount) if what == MEMORY else round(before + amount, 6)

    def amounts(self) -> Iterator[Amount]:
        """Yield all of them."""
        for table in ("models", "keys"):
            for name, amounts in getattr(self, table).items():
                yield from ((table, name, what, amount) for what, amount in amounts.items())


class UsageHistory:
    """Hours and days, the oldest first. Days begin at midnight in the server's time zone."""

    def __init__(self) -> None:
        self.hours: list[Period] = []
        self.days: list[Period] = []

    def add(self, now: float, memory_bytes: float, amounts: Iterable[Amount]) -> None:
        """Add what was counted until now, and the current memory of models."""
        for period in (_at(self.hours, _hour(now), MOST_HOURS), _at(self.days, _day(now), MOST_DAYS)):
            period.memory_bytes = max(period.memory_bytes, memory_bytes)
            for amount in amounts:
                period.add(*amount)

    def merge(self, other: UsageHistory) -> UsageHistory:
        """Add another history to this one, and return it."""
        for own, others, most in ((self.hours, other.hours, MOST_HOURS), (self.days, other.days, MOST_DAYS)):
            for each in others:
                period = _at(own, each.start, most)
                period.memory_bytes = max(period.memory_bytes, each.memory_bytes)
                for amount in each.amounts():
                    period.add(*amount)
        return self

    def dump(self) -> bytes:
        """Return the content of a file."""
        while True:
            content = {"version": 1, "hours": [*map(_plain, self.hours)], "days": [*map(_plain, self.days)]}
            data = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
            longer = self.hours or self.days
            if len(data) <= MOST_BYTES or not longer:
                return data
            del longer[: max(1, len(longer) // 10)]

    @classmethod
    def load(cls, data: bytes) -> UsageHistory:
        """Return the content of a file. Raise ValueError if it is invalid."""
        history = cls()
        try:
            content = json.loads(data)
            history.hours, history.days = (list(map(_period, content[name])) for name in ("hours", "days"))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a history of usage: {error!r}") from None
        return history


class UsageMeter:
    """Reader of counters, which returns what they have counted since the last time."""

    def __init__(self, counters: Counters, speed_metric: str) -> None:
        """`speed_metric` is the name of the histogram of the time between two tokens."""
        self._counters = counters
        self._speed_metric = speed_metric
        self._seen: dict[tuple[str, str, str], float] = {}

    def read(self) -> list[Amount]:
        """Return what has grown."""
        counters = self._counters
        current: defaultdict[tuple[str, str, str], float] = defaultdict(float)
        for (model, _, _), count in counters.requests.items():
            if model != NO_MODEL:
                current["models", model, REQUESTS] += count
        current |= {("models", model, what): amount for (model, what), amount in counters.counts.items()}
        current |= {("keys", key, what): amount for (key, what), amount in counters.by_key.items()}
        for (model, what), histogram in counters.histograms.items():
            if what == self._speed_metric:
                current["models", model, ANSWERS] = sum(histogram.counts)
                current["models", model, PACE] = histogram.sum
        grown: list[Amount] = []
        for place, amount in current.items():
            before = self._seen.get(place, 0)
            more = amount - before if amount >= before else amount  # its entry was removed and has come back
            if more:
                grown.append((*place, more))
        self._seen = current
        return grown


def _at(periods: list[Period], start: int, most: int) -> Period:
    """Return the period that starts then, creating it if there is none."""
    for period in reversed(periods):
        if period.start == start:
            return period
    period = Period(start)
    insort(periods, period, key=lambda each: each.start)
    del periods[:-most]
    return period


def _hour(now: float) -> int:
    return int(now) // 3600 * 3600


def _day(now: float) -> int:
    local = time.localtime(now)
    return int(time.mktime((local.tm_year, local.tm_mon, local.tm_mday, 0, 0, 0, 0, 0, -1)))


def _plain(period: Period) -> list[Any]:
    return [period.start, period.memory_bytes, period.models, period.keys]


def _period(said: list[Any]) -> Period:
    start, memory, models, keys = said
    tables = [
        {str(name): {str(what): float(amount) for what, amount in amounts.items()} for name, amounts in table.items()}
        for table in (models, keys)
    ]
    return Period(int(start), float(memory), *tables)
