"""The output of a child process as lines: bounded, whatever the process writes.

A line has a maximum length, and lines beyond a rate are dropped and counted. Reading never waits for anybody, so the
process is never blocked by its own output.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

MAX_LINE_BYTES: Final = 4096
MOST_LINES: Final = 500
"""Maximum lines that are passed on within WINDOW_SECONDS."""
WINDOW_SECONDS: Final = 10.0
KEPT_LINES: Final = 20
"""Number of last lines to remember."""
SHORTEST_HIDDEN: Final = 4
"""Shorter values are no secrets, and would be found in ordinary words."""
_READ_BYTES: Final = 2**16
_HIDDEN: Final = "[hidden]"


class Output:
    """Reader of stdout and stderr of one process. `on_line` gets the lines; `hide` are secrets that no line shows."""

    def __init__(self, on_line: Callable[[str], None], hide: Iterable[str] = ()) -> None:
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._hide = [secret for secret in hide if len(secret) >= SHORTEST_HIDDEN]
        self._window_began = -WINDOW_SECONDS
        self._lines = 0
        """Lines passed on in this window."""
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        """Timer that reports the number of dropped lines at the end of the window."""

    @property
    def last_line(self) -> str:
        """Last line so far; empty if there is none."""
        return self.last_lines[-1] if self.last_lines else ""

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Take line by line until the end. A carriage return, as of a progress bar, ends a line, too."""
        rest = b""
        try:
            while chunk := await stream.read(_READ_BYTES):
                *lines, rest = re.split(rb"[\r\n]+", self._shortened(rest + chunk))
                while len(rest) > MAX_LINE_BYTES:
                    lines.append(rest[:MAX_LINE_BYTES])
                    rest = rest[MAX_LINE_BYTES:]
                for line in lines:
                    self._take(line)
            self._take(rest)
        finally:
            self._tell_dropped()

    def _shortened(self, chunk: bytes) -> bytes:
        """Return only the end of a chunk if no more lines are passed on, as splitting all of it takes long."""
        if not self._is_full or len(chunk) <= MAX_LINE_BYTES:
            return chunk
        skipped, kept = chunk[:-MAX_LINE_BYTES], chunk[-MAX_LINE_BYTES:]
        self._drop(max(1, skipped.count(b"\n")))
        return kept

    @property
    def _is_full(self) -> bool:
        return self._lines >= MOST_LINES and time.monotonic() - self._window_began < WINDOW_SECONDS

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if not text:
            return
        for secret in self._hide:
            text = text.replace(secret, _HIDDEN)
        self.last_lines.append(text)
        if self._is_full:
            self._drop(1)
            return
        now = time.monotonic()
        if now - self._window_began >= WINDOW_SECONDS:
            self._tell_dropped()
            self._window_began, self._lines = now, 0
        self._lines += 1
        self._on_line(text)

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        if self._timer is None:
            seconds = self._window_began + WINDOW_SECONDS - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(seconds, self._tell_dropped)

    def _tell_dropped(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dropped:
            self._on_line(f"[{self._dropped} more lines were dropped: more than {MOST_LINES} in {WINDOW_SECONDS:g} s]")
            self._dropped = 0
