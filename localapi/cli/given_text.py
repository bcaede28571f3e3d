"""A text that is given as an argument or on standard input."""

from __future__ import annotations

import sys


def given_text(argument: str | None) -> str:
    """The argument, or standard input where it is - or left out; bytes that are no UTF-8 are replaced in both."""
    if argument is None or argument == "-":
        return sys.stdin.buffer.read().decode(errors="replace")  # as text it would raise for them in most locales
    return argument.encode(errors="surrogateescape").decode(errors="replace")
