"""Grammar of arguments that are text between tags: `<parameter=city>`, a newline, `Paris`, a newline, `</parameter>`.

Values are read back by the tool's schema (`output.argument_values`). Text is written as it is, anything else as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from localapi.worker.llm.constrained.compiling import Grammar, compiled
from localapi.worker.llm.constrained.json_level import TYPES, Schema, is_type
from localapi.worker.llm.constrained.schema_grammar import enforceable

_SHAPE: Final = frozenset({"type", "properties", "required", "additionalProperties", "$defs"})
"""Keywords of an object whose arguments can be written one after the other."""
_NAME: Final = re.compile(r"[^\s<>]+")
_DEEPEST: Final = 16
_VALUE: Final = '[suffix="\\n</parameter>\\n"]: TEXT\n'


@dataclass(frozen=True, slots=True)
class TaggedArguments:
    """The arguments of one function."""

    rules: str
    """Lark, with the rule `arguments` and the function's number. It needs the terminal TEXT."""
    grammars: list[Grammar]
    relaxed: tuple[str, ...]
    """The places where the schema asks for more than is enforced."""


def any_arguments(number: int) -> TaggedArguments:
    """Return the grammar of arguments of any name and value."""
    rules = f'arguments{number}: any{number}*\nany{number}: "<parameter=" /[^\\s<>]+/ ">\\n" value{number}\n'
    return TaggedArguments(f"{rules}value{number}{_VALUE}", [], (".",))


def tagged_arguments(subject: str, schema: Schema, number: int, *, strict: bool) -> TaggedArguments:
    """Return the grammar of arguments that a schema describes, in its order.

    Raises GrammarRefused as `enforceable` does. Constraints on text are not enforced.
    """
    found = enforceable(subject, schema, strict=strict)
    properties, required = found.schema.get("properties", {}), set(found.schema.get("required", ()))
    named = all(_NAME.fullmatch(name) for name in properties)
    if found.schema.keys() - _SHAPE or required - properties.keys() or not named:
        return any_arguments(number)
    definitions = found.schema.get("$defs", {})
    sequence, rules = [], []
    grammars: list[Grammar] = []
    relaxed = list(found.relaxed)
    for at, (name, value) in enumerate(properties.items()):
        if value is False:
            continue
        rule = f"{number}_{at}"
        sequence.append(f"argument{rule}" if name in required else f"argument{rule}?")
        rules.append(f"argument{rule}: {json.dumps(f'<parameter={name}>' + chr(10))} value{rule}\n")
        kinds = list(_alternatives(value, definitions))
        if all("enum" in kind for kind in kinds):
            members = " | ".join(_as_text(member) for kind in kinds for member in kind["enum"])
            rules.append(f'value{rule}: ({members}) "\\n</parameter>\\n"\n')
        elif any("string" in _types(kind) for kind in kinds):
            rules.append(f"value{rule}{_VALUE}")
            if not all(kind.keys() <= {"type"} for kind in kinds):
                relaxed.append(f"properties.{name}")
        else:
            rules.append(f'value{rule}: @value{rule} "\\n</parameter>\\n"\n')
            whole = {**value, "$defs": definitions} if definitions else value
            grammars.append({**compiled(whole), "name": f"value{rule}"})
    rules.insert(0, f"arguments{number}: {' '.join(sequence) or json.dumps('')}\n")
    return TaggedArguments("".join(rules), grammars, tuple(relaxed))


def _alternatives(node: Any, definitions: Mapping[str, Any], depth: int = 0) -> Iterator[Schema]:
    """Yield the schemas behind references and choices that stand alone."""
    if not isinstance(node, dict) or depth > _DEEPEST:
        yield {}
        return
    if node.keys() == {"$ref"}:
        yield from _alternatives(definitions.get(node["$ref"].rpartition("/")[2]), definitions, depth + 1)
    elif node.keys() in ({"anyOf"}, {"oneOf"}):
        [parts] = node.values()
        for part in parts:
            yield from _alternatives(part, definitions, depth + 1)
    else:
        yield node


def _types(node: Schema) -> set[str]:
    """Return the types of the values that a schema allows, as far as it names them."""
    if "enum" in node:
        return {name for name in TYPES for member in node["enum"] if is_type(member, name)}
    types = node.get("type", list(TYPES))
    return {types} if isinstance(types, str) else set(types)


def _as_text(member: object) -> str:
    """Return a value as a text of Lark."""
    return json.dumps(member if isinstance(member, str) else json.dumps(member, ensure_ascii=False), ensure_ascii=False)
