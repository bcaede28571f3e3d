"""The levels of `reasoning_effort` that a chat template knows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

LEVELS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Levels from no thinking to the most."""
_USUAL: Final = ("low", "medium", "high")
"""The levels of a template that writes any word into the prompt (gpt-oss)."""
_QUOTED: Final = re.compile(rf"[\"'](?P<level>{'|'.join(LEVELS)})[\"']")


def known_levels(template: str) -> tuple[str, ...]:
    """Return the levels that the template compares with; those that most models know if it names fewer than two."""
    named = {found["level"] for found in _QUOTED.finditer(template)}
    known = tuple(level for level in LEVELS if level in named)
    return known if len(known) > 1 else _USUAL


def nearest_level(level: str, known: Sequence[str]) -> str:
    """Return the known level that is nearest to this one; of two, the lower. An unknown word is returned as it is."""
    if level in known or level not in LEVELS:
        return level
    place = LEVELS.index(level)
    return min(known, key=lambda other: (abs(LEVELS.index(other) - place), LEVELS.index(other)))
