"""Tables and sentences for the terminal and for pipes: plain text in aligned columns, broken between words."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

from rich.cells import cell_len, chop_cells

GAP: Final = "  "
_NARROWEST: Final = 20
"""In fewer characters nobody reads a sentence or a path that is broken."""


def room() -> int | None:
    """The characters of a line on the terminal; None where there is none, and lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Lines with aligned columns, the head first.

    Where these are wider than `width`, the widest column is broken; where that is not enough, each cell is on a line.
    """
    widths = [max(cell_len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    over = sum(widths) + len(GAP) * (len(widths) - 1) - (width or sys.maxsize)
    if over > 0:
        widest = widths.index(max(widths))
        widths[widest] -= over
        if widths[widest] < _NARROWEST:
            return list(_stacked(head, rows))
    return [line for row in (head, *rows) for line in _row(row, widths)]


def wrapped(text: str, *, indent: int) -> str:
    """For a terminal: broken between words, further lines below the first, which begins at `indent`."""
    columns = room()
    if columns is None or columns - indent < _NARROWEST:
        return text
    lines = textwrap.wrap(text, columns - indent, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)


def _row(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    pieces = [chop_cells(cell, width) if cell else [""] for cell, width in zip(row, widths, strict=True)]
    for cells in zip_longest(*pieces, fillvalue=""):
        yield GAP.join(map(_padded, cells, widths)).rstrip()


def _stacked(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    first, *others = head
    widest = max(map(cell_len, others), default=0)
    for row in rows:
        yield f"{first}{GAP}{row[0]}"
        for name, cell in zip(others, row[1:], strict=True):
            if cell:
                yield f"{GAP}{_padded(name, widest)}{GAP}{cell}"


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))
