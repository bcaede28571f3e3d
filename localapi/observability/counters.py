"""What happened, in numbers: plain counts that cost a request nothing. How they are told is `api.metrics`' business."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

FIRST_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds for the time until something is there."""
TOKEN_SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds for the time of one token."""
NO_MODEL: Final = ""


@dataclass
class Histogram:
    """How often a value was up to each bound."""

    bounds: Sequence[float]
    sum: float = 0.0
    counts: list[int] = field(init=False)
    """Values up to each bound and above the one before; the last: above all."""

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(frozen=True)
class Metric:
    """A figure of a model: a count that only grows, or a histogram of durations if it has bounds."""

    name: str
    """Without the prefix `localapi_`; a histogram's ends in its unit."""
    help: str
    bounds: tuple[float, ...] | None = None
    """Upper bounds of a histogram's buckets, in seconds."""


@dataclass
class Counters:
    """The counts of one server, by the ids of entries."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By model, endpoint and status."""
    counts: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    """By model and metric."""
    histograms: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    """By model and metric."""
    reloads: Counter[bool] = field(default_factory=Counter)
    """Readings of the manifest, by whether they went well."""
    reloaded_at: dict[bool, float] = field(default_factory=dict)
    """The last of each, in Unix time."""

    def count(self, model: str, metric: Metric, amount: float) -> None:
        """Add to a model's count."""
        self.counts[model, metric.name] += amount

    def observe(self, model: str, metric: Metric, value: float) -> None:
        """Add one value to a model's histogram."""
        self.histogram(model, metric).add(value)

    def histogram(self, model: str, metric: Metric) -> Histogram:
        """Return a model's histogram, an empty one if nothing was observed."""
        return self.histograms.setdefault((model, metric.name), Histogram(metric.bounds or ()))

    def reloaded(self, at: float, *, ok: bool) -> None:
        """The manifest was read."""
        self.reloads[ok] += 1
        self.reloaded_at[ok] = at

    def keep(self, models: Collection[str]) -> None:
        """Forget models that are gone: there is a row for each entry of the manifest and no more."""
        kept = {NO_MODEL, *models}
        for table in (self.counts, self.histograms, self.requests):
            for key in [key for key in table if key[0] not in kept]:
                del table[key]  # type: ignore[arg-type]  # each table has its own keys
