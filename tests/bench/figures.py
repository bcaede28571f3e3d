"""Measurements as they are printed: medians, because the machine may be busy with other things."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence


def duration(seconds: Sequence[float]) -> str:
    """The median."""
    median = statistics.median(seconds)
    return f"{median:.2f} s" if median >= 1 else f"{1000 * median:.0f} ms"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the ratios round by round, and the extremes."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"


def share(right: Sequence[bool]) -> str:
    """Return the share that is true."""
    return f"{sum(right)} of {len(right)}"


def whole(numbers: Iterable[int]) -> str:
    """All of them, or how far they go."""
    known = sorted(set(numbers))
    return f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"
