"""Find lines of a text by character positions: where they start and end, and which belong together.

This module knows blanks, comments and line breaks, and nothing else of YAML.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Line breaks of YAML 1.1."""
_USUAL_BREAK: Final = re.compile("\r\n|[\n\r]")
"""Line breaks of editors; the others may occur inside a comment."""
_LAST_BREAK: Final = re.compile(rf"({BREAK.pattern})\Z")


class Lines:
    """Text whose positions count characters; a line is identified by the position of its start."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(found.end() for found in BREAK.finditer(text))]
        found = _USUAL_BREAK.search(text)
        self._break = found[0] if found else "\n"

    def line_start(self, at: int) -> int:
        """Return the line at a position."""
        return self._starts[bisect_right(self._starts, at) - 1]

    def line_end(self, at: int) -> int:
        """Return the end of the line at a position, before its line break."""
        found = BREAK.search(self.text, at)
        return found.start() if found else len(self.text)

    def next_line(self, at: int) -> int:
        """Return the line after the one at a position, or the end of the text after the last line."""
        after = bisect_right(self._starts, at)
        return self._starts[after] if after < len(self._starts) else len(self.text)

    def previous_line(self, line: int) -> int:
        """Return the line before a line."""
        return self.line_start(line - 1)

    def column(self, at: int) -> int:
        """Return the number of characters before a position on its line."""
        return at - self.line_start(at)

    def is_blank(self, line: int) -> bool:
        """Return True if a line is blank; the end of the text is not a line."""
        return line < len(self.text) and not self.text[line : self.line_end(line)].strip()

    def blank_above(self, line: int) -> bool:
        """Return True if the line above a line is blank."""
        return line > 0 and self.is_blank(self.previous_line(line))

    def begin(self, at: int, indent: int, floor: int) -> int:
        """Return the line where a construct starts, including the comments directly above with the same indentation."""
        line = self.line_start(at)
        while line > floor and self._comment_indent(above := self.previous_line(line)) == indent:
            line = above
        return line

    def after(self, end: int, indent: int, *, keeps: bool = False) -> int:
        """Return the line after a construct that ends at a position, and after the deeper comments directly below it.

        A value that `keeps` its last blank lines ends where the next line starts.
        """
        line = end if keeps else self.next_line(max(end - 1, 0))
        while line < len(self.text) and (found := self._comment_indent(line)) is not None and found > indent:
            line = self.next_line(line)
        return line

    def after_all(self, end: int, indent: int, *, keeps: bool = False) -> int:
        """Return the line after a construct, and after all deeper comments that follow, even after blank lines."""
        after = line = self.after(end, indent, keeps=keeps)
        while line < len(self.text):
            found = self._comment_indent(line)
            if (found is None or found <= indent) and not self.is_blank(line):
                break
            line = self.next_line(line)
            after = after if found is None else line
        return after

    def inserted(self, line: int, new: Sequence[str]) -> str:
        """Return the text with new lines before a line. The text ends with a line break if it did before."""
        before, after = self.text[:line], self.text[line:]
        lines = self._break.join(new)
        if before and not _LAST_BREAK.search(before):
            return before + self._break + lines
        return before + lines + self._break + after

    def removed(self, start: int, end: int) -> str:
        """Return the text without these lines. The text ends with a line break if it did before."""
        before, after = self.text[:start], self.text[end:]
        ended = self._starts[-1] == len(self.text)
        return before + after if after or ended else _LAST_BREAK.sub("", before)

    def _comment_indent(self, line: int) -> int | None:
        """Return the indentation of a comment line, or None for any other line."""
        content = self.text[line : self.line_end(line)]
        return len(content) - len(content.lstrip()) if content.lstrip().startswith("#") else None
