"""Compile a JSON schema with llguidance, as it is."""

from __future__ import annotations

import json
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits

from localapi.worker.llm.constrained.json_level import Schema

WHITESPACE: Final = r"( |\r?\n[ \t]{0,40})"
"""Whitespace between the parts of JSON: enough for indentation, but limited, because small models repeat it forever."""
LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=200_000, max_grammar_size=15_000, max_lexer_states=50_000, verbose_errors=False
)
"""Limits that, together with the grammar's length, bound the cost of compiling, during which no other row gets a token.
"""

LONGEST_PART: Final = 65_536
"""Maximum characters of one schema, so that a grammar has room for others."""

Grammar = dict[str, Any]
"""One of llguidance's grammars, which others may refer to by its name."""


def compiled(schema: Schema) -> Grammar:
    text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    text = LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": WHITESPACE})
    grammar: Grammar = json.loads(text)["grammars"][0]
    return grammar


def problem_of(grammar: Grammar) -> str:
    """Return llguidance's error about this grammar; empty if there is none."""
    return LLMatcher.validate_grammar(json.dumps({"grammars": [grammar]}), limits=LIMITS)


def problem_of_schema(schema: Schema) -> str:
    """Return what is wrong with the grammar of this schema; empty if nothing is."""
    grammar = compiled(schema)
    if len(json.dumps(grammar)) > LONGEST_PART:
        return "too long"
    return problem_of(grammar)


def patterns_clash(schema: Schema) -> bool:
    """Return True if schemas that apply to one object have patterns that match the same property.

    llguidance refuses these. Only it knows which schemas apply together once references and branches are resolved.
    """
    return problem_of_schema(schema).startswith("patternProperty regexes")
