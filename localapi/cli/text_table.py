"""Tables for the terminal and for pipes: plain text in aligned columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the head first."""
    widths = [max(cell_len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
