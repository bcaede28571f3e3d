"""Show a response on a terminal while it is generated.

Complete blocks are printed once; only the incomplete last block is redrawn, at the bottom. So nothing above it moves,
however long the response is, and the terminal's own scrolling works.
"""

from __future__ import annotations

import contextlib
import re
import sys
import termios
import time
from collections.abc import Iterator
from types import TracebackType
from typing import ClassVar, Final, Literal, Self

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme

from localapi.cli.asking import Piece
from localapi.cli.live_area import LiveArea
from localapi.cli.plain_text import shown, shown_in_line

_KEPT_LINES: Final = 3
"""Lines of the terminal that the incomplete block leaves free."""
_LONG: Final = 6000
"""Characters. Of an incomplete block longer than this, only the end is shown, as plain text."""
_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})([^`\n]*)$")
_GOES_ON: Final = re.compile(r"\s|[-*+] |\d{1,9}[.)] |>|\|")
"""Start of a line that continues the block before a blank line: a list, a quotation, a table."""
_UNDECIDED: Final = re.compile(r"[-*+]|\d{1,9}[.)]?")
"""Start of a line that may still turn into one of these."""
THEME: Final = Theme({"markdown.code": "bold cyan", "markdown.h1": "bold underline", "markdown.h2": "bold underline"})
"""Colours that suit both light and dark terminals."""
_PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_PARSER.disable(["image", "reference"])  # otherwise their text would not be shown


class AnswerView:
    """Context manager that shows the pieces of one response."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._kind: Literal["text", "thought"] = "text"
        self._open = ""
        """Text of the current kind that is not printed yet."""
        self._printed = False
        self._note = ""
        self._ended = False
        self._since = time.monotonic()
        self._spinner = Spinner("dots", style="dim")
        self._area = LiveArea(console, self._unfinished)

    def __enter__(self) -> Self:
        self._area.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._print(len(self._open))
        finally:
            self._note, self._ended = "", True
            self._area.__exit__(kind, error, trace)

    def show(self, piece: Piece) -> None:
        """Show the next piece."""
        if piece.kind == "note":
            self._note = piece.text
            return
        if piece.kind != self._kind:
            self._print(len(self._open))
            self._kind = piece.kind
        self._open += piece.text
        if "\n" in piece.text or self._open[: -len(piece.text)].endswith("\n"):
            self._print(complete_length(self._open) if self._kind == "text" else self._open.rfind("\n\n") + 1)

    def _print(self, length: int) -> None:
        """Print this many characters permanently."""
        block, self._open = self._open[:length], self._open[length:]
        if not block.strip():
            return
        between = [Text("\n")] if self._printed else []
        self._printed = True
        self._area.print(*between, rendered(block) if self._kind == "text" else thought(block))

    def _unfinished(self) -> RenderableType:
        """Return the renderable for the refresh thread."""
        lines = max(self._console.height - _KEPT_LINES, 1)
        text = self._open
        if self._ended:
            return Group()
        if not text.strip():
            note = shown_in_line(self._note) or ("thinking" if self._kind == "thought" else "")
            waited = time.monotonic() - self._since
            self._spinner.update(text=Text(f"{note} {waited:.0f} s" if waited > 1 else note, style="dim"))
            return self._spinner
        if self._kind == "thought":
            return thought(text[-_LONG:], last_lines=lines)
        if len(text) > _LONG:
            return Safe(Text(shown(text[-_LONG:])), last_lines=lines)
        return rendered(text, last_lines=lines)


@contextlib.contextmanager
def keys_unseen() -> Iterator[None]:
    """Hide keys typed during a response and keep them for the next prompt. Ctrl-C still works."""
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


def complete_length(text: str) -> int:
    """Return the length of the complete blocks of a growing text, which further text cannot change."""
    complete = at = 0
    fence, blank = "", False
    for line in text.splitlines(keepends=True):
        ended = line.endswith("\n")
        if fence:
            mark = line.strip()
            if ended and mark.startswith(fence) and not mark.strip(fence[0]):
                fence, complete = "", at + len(line)
        else:
            if blank and line.strip() and not _GOES_ON.match(line) and (ended or not _UNDECIDED.fullmatch(line)):
                complete = at
            if found := _FENCE.match(line.rstrip("\n")):
                fence = found[1]
            blank = ended and not line.strip()
        at += len(line)
    return complete


class _Title(Heading):
    """Bold heading, aligned to the left."""

    LEVEL_ALIGN: ClassVar = {}


class _Code(CodeBlock):
    """Code between dim fences, so that it can be copied unchanged."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name = "" if self.lexer_name == "text" else self.lexer_name
        yield Text(f"```{name}", style="dim")
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme="ansi_dark", word_wrap=True)
        yield Text("```", style="dim")


class _Answer(Markdown):
    """Rich's Markdown with another parser: HTML is text, line ends are kept, and links show their addresses."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements, "heading_open": _Title, "fence": _Code, "code_block": _Code,
    }  # fmt: skip

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for token in self._flatten_tokens(self.parsed):
            if token.type == "softbreak":
                token.type = "hardbreak"


class Safe:
    """Another renderable, without control characters or blank lines around it."""

    def __init__(self, inner: RenderableType, *, last_lines: int | None = None) -> None:
        self._inner, self._last_lines = inner, last_lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._inner, options.update(height=None), pad=False)
        written = [at for at, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
        lines = lines[written[0] : written[-1] + 1] if written else []
        for line in lines[-self._last_lines :] if self._last_lines else lines:
            yield from (Segment(shown(text), style) for text, style, control in line if not control)
            yield Segment.line()


def rendered(text: str, *, last_lines: int | None = None) -> Safe:
    """Render text as Markdown, or only its last lines."""
    return Safe(_Answer(shown(text)), last_lines=last_lines)


def thought(text: str, *, last_lines: int | None = None) -> Safe:
    """Render a model's reasoning: dim, without Markdown."""
    return Safe(Text(shown(text.strip("\n")), style="dim italic"), last_lines=last_lines)
