"""Try a client's grammar in a separate process, because llguidance never returns from some grammars.

`start: /a*/ start` is one (llguidance 1.9): a mask is computed forever, whatever the limits, and the computation holds
the interpreter lock. Here that costs a moment of another process. `grammar.Constraint` ends what random walks miss.

This file is also the script of that process. Its input is JSON: the grammar, and the model's special tokens as pairs of
number and text. Its vocabulary has only these and one token per byte, which can spell anything. It imports nothing of
localapi, which may not be importable there.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

TRIED_GRAMMARS = 64
CPU_SECONDS = 3
"""Processor time after which the process is killed."""
WALK_SECONDS = 0.05
LONGEST_WALK = 64


@lru_cache(TRIED_GRAMMARS)
def comes_to_an_end(lark: str, marks: tuple[tuple[int, str], ...] = ()) -> bool:
    """Return False if computing with the grammar never ends. All other errors are left to the model's compiler.

    `marks` are the model's special tokens, which the grammar may name.
    """
    trial = subprocess.run(  # noqa: S603  # our own script; the grammar is its input
        [sys.executable, "-I", __file__], input=json.dumps([lark, marks]).encode(), capture_output=True, check=False
    )
    return trial.returncode >= 0


class Vocabulary:
    """A vocabulary as llguidance's TokenizerWrapper expects it."""

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
    """Follow the grammar at random, to a dead end, to its end, or for LONGEST_WALK tokens."""
    for _ in range(LONGEST_WALK):
        if matcher.is_stopped():
            return
        mask = matcher.compute_bitmask()
        allowed = [token for token in tokens if mask[token >> 3] >> (token & 7) & 1]
        if matcher.is_error() or not allowed:
            return
        matcher.consume_token(random.choice(allowed))  # noqa: S311  # no secret


def main() -> None:
    """Walk through the grammar of the input for a moment. The kernel kills the process if that never ends."""
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
