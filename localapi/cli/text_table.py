"""Tables for the terminal and for pipes: plain text in aligned columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the head first."""
    widths = [max(cells_of(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return [
        "  ".join(cell + " " * (width - cells_of(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def cells_of(text: str) -> int:
    """How many columns of a terminal a text takes: characters of East Asia two, marks above others none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) != 0 for each in text)
