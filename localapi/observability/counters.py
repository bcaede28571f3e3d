"""Counters and histograms of events. `api.admin.metrics` renders them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

FIRST_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds for the time until the first result."""
TOKEN_SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds for the time per token."""
NO_MODEL: Final = ""
REQUESTS: Final = "requests"


@dataclass
class Histogram:
    """Counts of values by bucket."""

    bounds: Sequence[float]
    sum: float = 0.0
    counts: list[int] = field(init=False)
    """Number of values per bucket; the last bucket is above all bounds."""

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(frozen=True)
class Metric:
    """A metric of a model: a counter, or a histogram of durations if it has bounds."""

    name: str
    """Name without the prefix `localapi_`; a histogram's name ends with its unit."""
    help: str
    bounds: tuple[float, ...] | None = None
    """Upper bounds of a histogram's buckets, in seconds."""


@dataclass
class Counters:
    """Counters of one server, by the ids of entries."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """Requests by model, endpoint and status."""
    counts: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    """Counters by model and metric."""
    histograms: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    """Histograms by model and metric."""
    by_key: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    """Counters by API key name and metric, and its requests by `REQUESTS`."""
    key: str | None = None
    """Name of the API key that these counts belong to; None if there is none."""
    reloads: Counter[bool] = field(default_factory=Counter)
    """Reloads of the manifest by success."""
    reloaded_at: dict[bool, float] = field(default_factory=dict)
    """Unix time of the last reload by success."""

    def count(self, model: str, metric: Metric, amount: float) -> None:
        """Add to a model's count."""
        self.counts[model, metric.name] += amount
        if self.key is not None:
            self.by_key[self.key, metric.name] += amount

    def of_key(self, key: str) -> Counters:
        """Return these counters for requests with an API key, which they also count for the key."""
        return replace(self, key=key)

    def ended(self, model: str, endpoint: str, status: int) -> None:
        """Count a request that has ended."""
        self.requests[model, endpoint, status] += 1
        if self.key is not None:
            self.by_key[self.key, REQUESTS] += 1

    def observe(self, model: str, metric: Metric, value: float) -> None:
        """Add one value to a model's histogram."""
        self.histogram(model, metric).add(value)

    def histogram(self, model: str, metric: Metric) -> Histogram:
        """Return a model's histogram, an empty one if nothing was observed."""
        return self.histograms.setdefault((model, metric.name), Histogram(metric.bounds or ()))

    def reloaded(self, at: float, *, ok: bool) -> None:
        """Count a reload of the manifest."""
        self.reloads[ok] += 1
        self.reloaded_at[ok] = at

    def keep(self, models: Collection[str], keys: Collection[str] = ()) -> None:
        """Drop the counters of models and keys that are no longer in the manifest."""
        for counted in [counted for counted in self.by_key if counted[0] not in keys]:
            del self.by_key[counted]
        kept = {NO_MODEL, *models}
        for table in (self.counts, self.histograms, self.requests):
            for key in [key for key in table if key[0] not in kept]:
                del table[key]  # type: ignore[arg-type]  # each table has its own keys
