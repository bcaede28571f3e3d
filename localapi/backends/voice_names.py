"""Names of voices, whose capitals do not count, nor how an accent is encoded."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def folded(name: str) -> str:
    """Return what equal names have in common."""
    return unicodedata.normalize("NFC", name).casefold()


def named(values: Mapping[str, Value], name: str) -> Value | None:
    """Return the value of a name: as it is written, or else of one that differs in capitals only."""
    if name in values:
        return values[name]
    wanted = folded(name)
    return next((value for key, value in values.items() if folded(key) == wanted), None)
