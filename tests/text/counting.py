"""Count the work of a function: a number that is the same on every machine and every day."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

HOSTILE = [
    "[", "![", "[a](", "[a](<b", "[^", "(", "*", "*a ", "**a", "*a_", "a**b", "**\uff1a", "`", "`a``", "<", "<a ",
    "<!--", "<b>", "&", "> ", ">", "- ", "1. ", "|", "a|b\n-|-\n", "\\", "#", "[a]: /u\n", "http://", "www.a",
    "https://a@", "😀", " 😀", ".", "a.", '."', '"', "“", "'", " '", "」。", "Dr. ", "…", "。", ".\n", "\n", " ",
    "A\u00a0.", "\uff0c", "a, ", "e\u0301", "\u0301\u0316", "x", "重", "\ud800", "\u200d",
]  # fmt: skip


def calls(function: Callable[[str], object], text: str) -> int:
    """Function calls that `function(text)` makes, those of built-in functions included."""
    counted = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function(text)
    finally:
        sys.setprofile(None)
    return counted
