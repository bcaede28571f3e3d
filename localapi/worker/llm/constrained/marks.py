"""Marks in Lark's syntax: the strings around reasoning and calls, which may be tokens of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any


class Marks:
    """Writer of marks in Lark's syntax. A special token is written by its number, because text never matches it."""

    def __init__(self, tokenizer: Any) -> None:
        """Treat all added tokens as special, as llguidance does, regardless of the tokenizer."""
        self._numbers = {str(token): number for number, token in tokenizer.added_tokens_decoder.items()}
        longest_first = sorted(self._numbers, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "($.)")

    def lark(self, text: str) -> str:
        """Return the text in Lark's syntax."""
        return " ".join(map(self._piece, self._pieces(text)))

    def until(self, mark: str) -> str:
        """Return a rule `free`: any text up to this mark, and the mark."""
        return self.text_until("free", mark)

    def text_until(self, rule: str, mark: str) -> str:
        """Return a rule of this name: any text up to this mark, and the mark."""
        first, *rest = self._pieces(mark)
        tail = " ".join(map(self._piece, rest))
        if first in self._numbers:
            return f"{rule}: TEXT {self._piece(first)} {tail}\n"
        if not rest:
            return f"{rule}[suffix={self._piece(first)}]: TEXT\n"
        return f"{rule}: {rule}_end {tail}\n{rule}_end[suffix={self._piece(first)}]: TEXT\n"

    def text_up_to(self, mark: str, ends: Collection[int], *, bare: str = "") -> str:
        """Return the rules `text` and `begun`: text without the mark and the `ends`, and text up to the mark.

        `bare` is a mark that is not a token, for which there is the rule `begun_bare`.

        A mark that is a token also counts if it is spelled with other tokens, because the parser of calls sees no
        difference.
        """
        first, *rest = self._pieces(mark)
        tail = " ".join(map(self._piece, rest))
        others = sorted(number for text, number in self._numbers.items() if text != first and number not in ends)
        special = f"(<[{','.join(map(str, others))}]> TEXT)*" if others else ""
        token = f" | text {self._piece(first)} {tail}" if first in self._numbers else ""
        spelled = f"spelled[lazy]: TEXT {json.dumps(mark, ensure_ascii=False)}\n"
        before = f"(TEXT <[{','.join(map(str, others))}]>)*" if others else ""
        rules = f"text: TEXT {special}\nbegun: {before} spelled{token}\n{spelled}"
        if bare:
            rules += f"begun_bare: {before} bare\nbare[lazy]: TEXT {json.dumps(bare)}\n"
        return rules

    def _pieces(self, text: str) -> list[str]:
        return [piece for piece in self._split.split(text) if piece]

    def _piece(self, text: str) -> str:
        number = self._numbers.get(text)
        return json.dumps(text, ensure_ascii=False) if number is None else f"<[{number}]>"
