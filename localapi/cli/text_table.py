"""Tables and wrapped sentences for terminals and pipes: plain text in aligned columns."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Final

GAP: Final = "  "
_NARROWEST: Final = 20
"""Minimum width for wrapping a sentence."""
_ANY_WIDTH: Final = 100_000


def room() -> int | None:
    """Return the width of the terminal; None if there is none, so lines may have any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Return lines with aligned columns, the head first. Cells wrap if they exceed `width`."""
    from rich.console import Console  # noqa: PLC0415  # 20 ms that most commands do not need
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="")
    for name in head:
        grid.add_column(Text(name), overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    output = io.StringIO()
    Console(file=output, width=width or _ANY_WIDTH, color_system=None).print(grid)
    return [line.rstrip() for line in output.getvalue().removesuffix("\n").split("\n")]


def wrapped(text: str, *, indent: int) -> str:
    """Return the text wrapped between words for a terminal, with all lines but the first indented."""
    columns = room()
    if columns is None or columns - indent < _NARROWEST:
        return text
    lines = textwrap.wrap(text, columns - indent, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)
