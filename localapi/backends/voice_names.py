"""Compare names of voices, ignoring case and Unicode normalization."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def folded(name: str) -> str:
    """Return a form that is equal for equal names."""
    return unicodedata.normalize("NFC", name).casefold()


def named(values: Mapping[str, Value], name: str) -> Value | None:
    """Return the value of a name: of exactly this name, or else of one that differs only in case."""
    if name in values:
        return values[name]
    wanted = folded(name)
    return next((value for key, value in values.items() if folded(key) == wanted), None)
