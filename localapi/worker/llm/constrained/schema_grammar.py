"""Compile a JSON schema to a grammar: exactly, or relaxed if the request is not strict. This module knows no tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from localapi.worker.llm.constrained.compiling import Grammar, compiled, problem_of_schema
from localapi.worker.llm.constrained.json_level import NotASchema, Schema
from localapi.worker.llm.constrained.json_schema import RewrittenSchema, rewrite_schema

AS_WRITTEN, PIECEWISE, TYPE_ONLY = 0, 1, 2
"""Parts to keep of a schema that is not strict: everything; the properties that compile; only its type."""
_SHOWN_PLACES: Final = 5
MOST_TRIALS: Final = 32


class GrammarRefused(Exception):
    """The model cannot answer in this form. The message tells the user why."""


@dataclass(frozen=True, slots=True)
class SchemaGrammar:
    """A schema, compiled as far as possible without knowing the tokens."""

    grammar: Grammar
    relaxed: tuple[str, ...]
    """Places that are not enforced, as in `RewrittenSchema`."""


def enforceable(subject: str, schema: object, *, strict: bool, closed: bool = False) -> RewrittenSchema:
    """Return what llguidance enforces of a schema. If `closed`, objects have only named properties, as in strict mode.

    Raise GrammarRefused, naming the `subject`, if it is not a schema, or if it is strict and cannot be enforced.
    """
    try:
        found = rewrite_schema(schema, close=strict or closed)
    except NotASchema as error:
        raise GrammarRefused(f"{subject} cannot be followed: {error}.") from error
    if strict and found.relaxed:
        places = ", ".join(found.relaxed[:_SHOWN_PLACES])
        raise GrammarRefused(f"{subject} cannot be enforced at: {places}. Change these, or remove strict.")
    return found


def grammar_of_schema(
    subject: str, schema: object, *, strict: bool, closed: bool = False, kept: int = AS_WRITTEN
) -> SchemaGrammar:
    """Return the grammar for JSON of this schema.

    Raise GrammarRefused. `strict` and `closed` are as in `enforceable`.
    """
    found = enforceable(subject, schema, strict=strict, closed=closed)
    if strict or kept == AS_WRITTEN:
        return SchemaGrammar(compiled(found.schema), found.relaxed)
    if kept == PIECEWISE:
        rest, dropped = _what_compiles(found.schema)
        if rest is not None:
            return SchemaGrammar(compiled(rest), (*found.relaxed, *dropped))
    only = {"type": found.schema["type"]} if "type" in found.schema else {}
    return SchemaGrammar(compiled(only), (".",))


def below(prefix: str, relaxed: tuple[str, ...]) -> tuple[str, ...]:
    """Return the relaxed places of a schema that is itself at a place in the request."""
    return tuple(prefix if place == "." else f"{prefix}.{place}" for place in relaxed)


def any_object() -> Grammar:
    """Return the grammar for any JSON object."""
    return compiled({"type": "object"})


def _what_compiles(schema: Schema) -> tuple[Schema | None, list[str]]:
    """Return the schema in which properties that do not compile allow anything, and their names.

    The schema is None if that does not help either.

    Compiling is tried only a few times, because no other row gets a token meanwhile.
    """
    if not problem_of_schema(schema):
        return schema, []
    if len(schema.get("properties", {})) > MOST_TRIALS:
        return None, []
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    properties = dict(schema.get("properties", {}))
    dropped: list[str] = []
    for name, part in properties.items():
        if part is False or (isinstance(part, dict) and problem_of_schema({**part, **definitions})):
            properties[name] = {}
            dropped.append(f"properties.{name}")
    rest = {**schema, "properties": properties}
    return (None, []) if not dropped or problem_of_schema(rest) else (rest, dropped)
