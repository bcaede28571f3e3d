"""Markdown of a model on a terminal: which parts of a text are complete, and how they look.

Whatever the text holds, it stays text: no HTML is dropped, no link hides its address, no control character is sent.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme

from localapi.cli.plain_text import shown

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})([^`\n]*)$")
_GOES_ON: Final = re.compile(r"\s|[-*+] |\d{1,9}[.)] |>|\|")
"""How a line begins that belongs to what is before a blank line: more of a list, a quotation, a table."""
_UNDECIDED: Final = re.compile(r"[-*+]|\d{1,9}[.)]?")
"""The first characters of a line of which more has to come to say that."""
THEME: Final = Theme({"markdown.code": "bold cyan", "markdown.h1": "bold underline", "markdown.h2": "bold underline"})
"""For light terminals and dark ones."""
_PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_PARSER.disable(["image", "reference"])  # their text would not be shown


def complete_length(text: str) -> int:
    """How much of a text that grows is complete blocks, which what follows cannot change."""
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
    """Where it stands, in bold; none in the middle of the line."""

    LEVEL_ALIGN: ClassVar = {}


class _Code(CodeBlock):
    """Code between dim fences, so that it can be copied as it is."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name = "" if self.lexer_name == "text" else self.lexer_name
        yield Text(f"```{name}", style="dim")
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme="ansi_dark", word_wrap=True)
        yield Text("```", style="dim")


class _Answer(Markdown):
    """Rich's, with a parser of our own: HTML is text, line ends stay, and a link says where it leads."""

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
    """What another renderable shows, without control characters, whatever it makes of its text."""

    def __init__(self, inner: RenderableType, *, last_lines: int | None = None) -> None:
        self._inner, self._last_lines = inner, last_lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = _trimmed(console.render_lines(self._inner, options.update(height=None), pad=False))
        for line in lines[-self._last_lines :] if self._last_lines else lines:
            yield from (Segment(shown(text), style) for text, style, control in line if not control)
            yield Segment.line()


def _trimmed(lines: list[list[Segment]]) -> list[list[Segment]]:
    """Without the blank ones before and after."""
    written = [at for at, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
    return lines[written[0] : written[-1] + 1] if written else []


def rendered(text: str, *, last_lines: int | None = None) -> Safe:
    """A text as markdown, or the last lines of it."""
    return Safe(_Answer(shown(text)), last_lines=last_lines)


def thought(text: str, *, last_lines: int | None = None) -> Safe:
    """What a model thinks: dim, as it wrote it."""
    return Safe(Text(shown(text.strip("\n")), style="dim italic"), last_lines=last_lines)
