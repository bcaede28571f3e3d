"""Lower part of a terminal, redrawn several times a second, below permanently printed text.

Rich redraws in a thread of its own. If another thread prints between its measuring and its erasing, stale lines remain.
Here one lock covers both, and text is printed in one write together with the redrawn area.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live

FRAMES_PER_SECOND: Final = 10


class LiveArea:
    """Context manager that keeps showing what `view` returns. The last view remains only if `keep` is true."""

    def __init__(self, console: Console, view: Callable[[], RenderableType], *, keep: bool = False) -> None:
        self._console, self._view = console, view
        self._live = Live(console=console, auto_refresh=False, transient=not keep)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._drawer = threading.Thread(target=self._draw_often, daemon=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._drawer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._drawer.join()
        self.draw()
        self._live.stop()

    def draw(self) -> None:
        """Redraw now."""
        with self._lock:
            self._live.update(self._view(), refresh=True)

    def print(self, *lines: RenderableType) -> None:
        """Print permanent lines above the area."""
        with self._lock, self._console:
            self._live.update(Group(), refresh=True)
            for line in lines:
                self._console.print(line, end="")
            self.draw()

    def _draw_often(self) -> None:
        while not self._closed.wait(1 / FRAMES_PER_SECOND):
            self.draw()
