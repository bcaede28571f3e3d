"""A plot of bars in plain characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def bars(values: Mapping[str, float], *, width: int) -> list[str]:
    """A line for each value: its name, a bar in proportion to the largest, the number."""
    most = max(values.values(), default=0) or 1
    names = max(map(len, values), default=0)
    return [
        f"{name.rjust(names)} {_bar(value / most * width).ljust(width)} {decimal(value)}"
        for name, value in values.items()
    ]


def decimal(value: float) -> str:
    """A number for people, of three digits or more."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004  # three digits


def _bar(length: float) -> str:
    whole, part = divmod(round(length * 8), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")
