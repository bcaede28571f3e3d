"""An answer on a terminal while it is written.

What is complete is printed once and stays; only the block that is being written is drawn anew, at the bottom. So
nothing above it moves, however long the answer is, and the terminal's own scrolling works.
"""

from __future__ import annotations

import contextlib
import sys
import termios
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Literal, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from localapi.cli.asking import Piece
from localapi.cli.markdown_view import Safe, complete_length, rendered, thought
from localapi.cli.plain_text import shown, shown_in_line

FRAMES_PER_SECOND: Final = 10
_KEPT_LINES: Final = 3
"""Of the terminal's height, not used for the block that is being written."""
_LONG: Final = 6000
"""Characters; of longer blocks that are not complete only the end is laid out, and as it stands."""


class AnswerView:
    """Shows the pieces of one answer; `with` it is open."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._kind: Literal["text", "thought"] = "text"
        self._open = ""
        """Of this kind, what is not printed yet."""
        self._printed = False
        self._note = ""
        self._since = time.monotonic()
        self._spinner = Spinner("dots", style="dim")
        self._live = Live(
            console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True, get_renderable=self._unfinished
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_kind()
        self._live.stop()

    def show(self, piece: Piece) -> None:
        """Take what came."""
        if piece.kind == "note":
            self._note = piece.text
            return
        if piece.kind != self._kind:
            self._finish_kind()
            self._kind = piece.kind
        self._open += piece.text
        if "\n" in piece.text or self._open[: -len(piece.text)].endswith("\n"):
            self._print_complete()

    def _print_complete(self) -> None:
        if length := complete_length(self._open) if self._kind == "text" else self._open.rfind("\n\n") + 1:
            block, self._open = self._open[:length], self._open[length:]
            self._print(block)

    def _finish_kind(self) -> None:
        block, self._open = self._open, ""
        self._print(block)

    def _print(self, block: str) -> None:
        if not block.strip():
            return
        if self._printed:
            self._console.print()
        self._printed = True
        self._console.print(rendered(block) if self._kind == "text" else thought(block), end="")

    def _unfinished(self) -> RenderableType:
        """Drawn by the thread that refreshes."""
        lines = max(self._console.height - _KEPT_LINES, 1)
        text = self._open
        if not text.strip():
            return self._waiting()
        if self._kind == "thought":
            return thought(text[-_LONG:], last_lines=lines)
        if len(text) > _LONG:
            return Safe(Text(shown(text[-_LONG:])), last_lines=lines)
        return rendered(text, last_lines=lines)

    def _waiting(self) -> RenderableType:
        waited = time.monotonic() - self._since
        note = shown_in_line(self._note) or ("thinking" if self._kind == "thought" else "")
        words = f"{note} {waited:.0f} s" if waited > 1 else note
        self._spinner.update(text=Text(words, style="dim"))
        return self._spinner


@contextlib.contextmanager
def keys_unseen() -> Iterator[None]:
    """What is typed meanwhile does not appear in the middle of an answer; the next prompt gets it. Ctrl-C works."""
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError):
        yield
        return
    unseen = [*before]
    unseen[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, unseen)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
