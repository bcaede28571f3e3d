"""A client's grammar, tried in a process of its own: there are some that llguidance never comes back from.

`start: /a*/ start` is one (llguidance 1.9): a mask is computed for ever, whatever the limits, and holds the interpreter
meanwhile. Here it costs a moment of another process. What random ways do not find, `grammar.Constraint` ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from localapi.worker.llm.constrained.schema_grammar import GrammarRefused

TRIED_GRAMMARS = 64
_WALK = Path(__file__).with_name("grammar_walk.py")


def try_grammar(lark: str, marks: tuple[tuple[int, str], ...] = ()) -> None:
    """Raises GrammarRefused where an answer goes round in circles. The rest is the model's own compiler's to say.

    `marks`: the model's special tokens, which the grammar may name.
    """
    if not _ends(lark, marks):
        raise GrammarRefused(
            "The grammar cannot be followed: it goes round in circles. Does every rule have a way to its end?"
        )


@lru_cache(TRIED_GRAMMARS)
def _ends(lark: str, marks: tuple[tuple[int, str], ...]) -> bool:
    trial = subprocess.run(  # noqa: S603  # our own script; the grammar is its input
        [sys.executable, "-I", str(_WALK)], input=json.dumps([lark, marks]).encode(), capture_output=True, check=False
    )
    return trial.returncode >= 0
