"""What happened, in numbers: plain counts that cost a request nothing. How they are told is `api.metrics`' business."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
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


@dataclass
class OfModel:
    """What one model did."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    speech_characters: int = 0
    speech_seconds: float = 0.0
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_SECONDS))
    output_token: Histogram = field(default_factory=lambda: Histogram(TOKEN_SECONDS))
    first_sound: Histogram = field(default_factory=lambda: Histogram(FIRST_SECONDS))


@dataclass
class Tally:
    """The counts of one server, by the ids of entries."""

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By model, endpoint and status."""
    models: dict[str, OfModel] = field(default_factory=dict)
    reloads: Counter[bool] = field(default_factory=Counter)
    """Readings of the manifest, by whether they went well."""
    reloaded_at: dict[bool, float] = field(default_factory=dict)
    """The last of each, in Unix time."""

    def answered(
        self, model: str, *, prompt: int, cached: int, completion: int, first_seconds: float, rest_seconds: float
    ) -> None:
        """An answer in tokens is complete. `rest_seconds`: from the first token to the last."""
        counts = self._of(model)
        counts.prompt_tokens += prompt
        counts.cached_tokens += cached
        counts.completion_tokens += completion
        if completion:
            counts.first_token.add(first_seconds)
        if completion > 1:
            counts.output_token.add(rest_seconds / (completion - 1))

    def spoken(self, model: str, *, characters: int, seconds: float, first_seconds: float) -> None:
        """A text was spoken, which took so many seconds of sound."""
        counts = self._of(model)
        counts.speech_characters += characters
        counts.speech_seconds += seconds
        counts.first_sound.add(first_seconds)

    def reloaded(self, at: float, *, ok: bool) -> None:
        """The manifest was read."""
        self.reloads[ok] += 1
        self.reloaded_at[ok] = at

    def keep(self, models: Collection[str]) -> None:
        """Forget models that are gone: there is a row for each entry of the manifest and no more."""
        for gone in self.models.keys() - set(models):
            del self.models[gone]
        for key in [key for key in self.requests if key[0] not in (NO_MODEL, *models)]:
            del self.requests[key]

    def _of(self, model: str) -> OfModel:
        return self.models.setdefault(model, OfModel())
