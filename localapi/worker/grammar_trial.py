"""A client's grammar, tried in a process of its own: there are some that llguidance never comes back from.

`start: /a*/ start` is one (llguidance 1.9): its first mask is computed for ever, whatever the limits, and holds the
interpreter meanwhile. Here it costs a moment of another process.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

from localapi.worker.tool_grammar import GrammarRefused

TRIED_GRAMMARS = 64
_CPU_SECONDS = 3
_TRIAL = f"""
import json, resource, sys
from llguidance import LLMatcher, LLTokenizer
resource.setrlimit(resource.RLIMIT_CPU, ({_CPU_SECONDS}, {_CPU_SECONDS}))
grammar = json.dumps({{"grammars": [{{"lark_grammar": sys.stdin.buffer.read().decode()}}]}})
matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
if not matcher.is_error():
    matcher.compute_bitmask()
"""


@lru_cache(TRIED_GRAMMARS)
def try_grammar(lark: str) -> None:
    """Raises GrammarRefused where no answer could begin. What else is wrong with it the model's own compiler says."""
    trial = subprocess.run(  # noqa: S603  # our own text; the grammar is its input
        [sys.executable, "-I", "-c", _TRIAL], input=lark.encode("utf-8", "replace"), capture_output=True, check=False
    )
    if trial.returncode < 0:
        raise GrammarRefused(
            "The grammar cannot be followed: it goes round in circles. Does every rule have a way to its end?"
        )
