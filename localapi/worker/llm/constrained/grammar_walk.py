"""Follows a grammar along random ways for a moment. A script of its own: see `grammar_trial`.

Its input is JSON: the grammar, and the model's special tokens as pairs of number and text. Of a real vocabulary only
those are here; the rest is one token for each byte, which can spell everything. Knows nothing of localapi.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

CPU_SECONDS = 3
"""After which the process is killed."""
WALK_SECONDS = 0.05
LONGEST_WALK = 64


class Vocabulary:
    """What llguidance's TokenizerWrapper wants to know."""

    bos_token_id = None

    def __init__(self, marks: Sequence[tuple[int, str]]) -> None:
        self.special_token_ids = [number for number, _ in marks]
        self.tokens = [b""] * (max(self.special_token_ids, default=-1) + 258)
        for number, text in marks:
            self.tokens[number] = text.encode()
        taken = set(self.special_token_ids)
        free = (number for number in range(len(self.tokens)) if number not in taken)
        self.eos_token_id = next(free)
        self.bytes = [next(free) for _ in range(256)]
        for byte, number in enumerate(self.bytes):
            self.tokens[number] = bytes([byte])

    def __call__(self, text: bytes) -> list[int]:
        return [self.bytes[byte] for byte in text]


def walk(matcher: Any, tokens: Sequence[int]) -> None:
    """To a dead end, to the grammar's end, or until it is long enough."""
    for _ in range(LONGEST_WALK):
        if matcher.is_stopped():
            return
        mask = matcher.compute_bitmask()
        allowed = [token for token in tokens if mask[token >> 3] >> (token & 7) & 1]
        if matcher.is_error() or not allowed:
            return
        matcher.consume_token(random.choice(allowed))  # noqa: S311  # no secret


def main() -> None:
    """Ends; or is killed, where the grammar never lets it."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    lark, marks = json.load(sys.stdin)
    vocabulary = Vocabulary(marks)
    grammar = json.dumps({"grammars": [{"lark_grammar": lark}]})
    matcher = LLMatcher(LLTokenizer(TokenizerWrapper(vocabulary)), grammar, log_level=0)
    random.seed(0)
    end = time.process_time() + WALK_SECONDS
    while not matcher.is_error() and time.process_time() < end:
        walk(matcher.deep_copy(), [*vocabulary.bytes, *vocabulary.special_token_ids])


if __name__ == "__main__":
    main()
