"""Grammars of arguments that are not one JSON object: text between tags, elements, Python's keywords, Gemma's objects.

Values are read back by the tool's schema (`output.argument_values`). Between tags, text is written unchanged, and
anything else as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from localapi.worker.llm.constrained.compiling import Grammar, compiled
from localapi.worker.llm.constrained.json_level import TYPES, Schema, is_type
from localapi.worker.llm.constrained.marks import Marks
from localapi.worker.llm.constrained.schema_grammar import enforceable
from localapi.worker.llm.output.formats import Spelling

_SHAPE: Final = frozenset({"type", "properties", "required", "additionalProperties", "$defs"})
"""Keywords of an object whose arguments can be written one after the other."""
_LIST: Final = frozenset({"type", "items", "minItems", "maxItems"})
"""Keywords of a list that can be followed item by item."""
_NAMES: Final = {"tags": re.compile(r"[^\s<>\"]+"), "python": re.compile(r"[A-Za-z_]\w*"), "gemma": re.compile(r"\w+")}
"""Names that can be written in a syntax."""
_ANY_NAME: Final = {"tags": r"/[^\s<>\"]+/", "python": "/[A-Za-z_][A-Za-z_0-9]*/", "gemma": "/[A-Za-z_0-9]+/"}
_DEEPEST: Final = 16


@dataclass(frozen=True, slots=True)
class WrittenArguments:
    """Arguments of one function."""

    rules: str
    """Rules in Lark, including `arguments` with the function's number. They need the terminal TEXT."""
    grammars: list[Grammar]
    relaxed: tuple[str, ...]
    """Places where the schema requires more than is enforced."""


class Writer:
    """Writer of the grammar of one function's arguments."""

    def __init__(self, spelling: Spelling, string_mark: str, marks: Marks, number: int) -> None:
        self._tags = spelling.argument
        self._is_nested = spelling.nested
        self._syntax = "tags" if spelling.argument is not None else spelling.arguments
        self._mark = string_mark
        self._marks = marks
        self._number = number
        self._rules: list[str] = []
        self._grammars: list[Grammar] = []
        self._relaxed: list[str] = []
        self._definitions: Mapping[str, Any] = {}

    def anything(self) -> WrittenArguments:
        """Return the grammar of arguments with any names and values."""
        self._rules, self._grammars, self._relaxed = [], [], ["."]
        n = self._number
        if self._is_nested:
            self._rules.append(f"arguments{n}: {self._any_element()}*\n")
        elif self._syntax == "tags":
            self._rules.append(f"arguments{n}: any{n}*\nany{n}: {self._argument('', f'value{n}', text=True)}\n")
            self._text_value(f"value{n}")
        elif self._syntax == "gemma":
            self._rules.append(f"arguments{n}: {self._any_gemma()}_object\n")
        else:
            self._grammars.append({**compiled({}), "name": f"value{n}"})
            self._rules.append(f'arguments{n}: (any{n} (", " any{n})*)?\nany{n}: {_ANY_NAME["python"]} "=" @value{n}\n')
        return self._written()

    def arguments(self, subject: str, schema: Schema, *, strict: bool) -> WrittenArguments:
        """Return the grammar of arguments that a schema describes, in its order.

        Raise GrammarRefused as `enforceable` does. Constraints on text are not enforced.
        """
        found = enforceable(subject, schema, strict=strict)
        properties, required = found.schema.get("properties", {}), set(found.schema.get("required", ()))
        named = all(_NAMES[self._syntax].fullmatch(name) for name in properties)
        if found.schema.keys() - _SHAPE or required - properties.keys() or not named:
            return self.anything()
        self._definitions = found.schema.get("$defs", {})
        self._relaxed = list(found.relaxed)
        n = self._number
        if self._syntax == "tags":
            sequence = self._sequence(f"{n}", properties, required, "properties")
            self._rules.insert(0, f"arguments{n}: {sequence}\n")
        else:
            body = self._members(f"{n}", properties, required, "properties")
            braces = ('"{" ', ' "}"') if self._syntax == "gemma" else ("", "")
            self._rules.insert(0, f"arguments{n}: {braces[0]}{body}{braces[1]}\n")
        return self._written()

    def _written(self) -> WrittenArguments:
        return WrittenArguments("".join(self._rules), self._grammars, tuple(self._relaxed))

    def _argument(self, name: str, value: str, *, text: bool) -> str:
        """Return one argument between its tags. The value's rule ends with the closing tag. Without a name, any."""
        assert self._tags is not None  # noqa: S101
        opening = self._tags[0].replace("{text}", "true" if text else "false")
        before, _, behind = opening.partition("{key}")
        if name:
            return f"{self._marks.lark(before + name + behind)} {value}"
        return f"{self._marks.lark(before)} {_ANY_NAME['tags']} {self._marks.lark(behind)} {value}"

    def _sequence(self, prefix: str, properties: Mapping[str, Any], required: set[str], place: str) -> str:
        """Return the rule of arguments between tags, in the order of the schema."""
        sequence = []
        for at, (name, value) in enumerate(properties.items()):
            if value is False:
                continue
            rule = f"{prefix}_{at}"
            sequence.append(f"argument{rule}" if name in required else f"argument{rule}?")
            is_text = self._value(f"value{rule}", value, f"{place}.{name}", name)
            self._rules.append(f"argument{rule}: {self._argument(name, f'value{rule}', text=is_text)}\n")
        return " ".join(sequence) or json.dumps("")

    def _members(self, prefix: str, properties: Mapping[str, Any], required: set[str], place: str) -> str:
        """Return the rule of members with commas in between, starting with the first one present."""
        separator = '", "' if self._syntax == "python" else '","'
        joint = "=" if self._syntax == "python" else ":"
        kept = [(name, value) for name, value in properties.items() if value is not False]
        for at, (name, value) in enumerate(kept):
            member, following = f"member{prefix}_{at}", f"{prefix}_{at + 1}"
            rule = f"value{prefix}_{at}"
            self._value(rule, value, f"{place}.{name}")
            self._rules.append(f"{member}: {json.dumps(name + joint)} {rule}\n")
            skip_first = "" if name in required else f" | first{following}"
            skip_later = "" if name in required else f" | later{following}"
            self._rules.append(f"first{prefix}_{at}: {member} later{following}{skip_first}\n")
            self._rules.append(f"later{prefix}_{at}: {separator} {member} later{following}{skip_later}\n")
        self._rules.append(f'first{prefix}_{len(kept)}: ""\nlater{prefix}_{len(kept)}: ""\n')
        return f"first{prefix}_0"

    def _value(self, rule: str, value: Any, place: str, name: str = "") -> bool:
        """Add the rule of a value, with the tag behind it, which may have the argument's name. Return True for text."""
        kinds = list(_alternatives(value, self._definitions))
        if all("enum" in kind for kind in kinds):
            members = [member for kind in kinds for member in kind["enum"]]
            self._rules.append(f"{rule}: ({' | '.join(map(self._literal, members))}) {self._closing(name)}\n")
            return all(isinstance(member, str) for member in members)
        is_text = any("string" in _types(kind) for kind in kinds)
        if is_text and self._syntax != "python":
            if not all(kind.keys() <= {"type"} for kind in kinds):
                self._relaxed.append(place)
            if self._syntax == "tags":
                self._text_value(rule, name)
            else:
                self._gemma_text(rule)
            return True
        if self._is_nested and any(_types(kind) & {"object", "array"} for kind in kinds):
            self._elements(rule, kinds, place, name)
            return False
        if self._syntax == "gemma" and any(_types(kind) & {"object", "array"} for kind in kinds):
            self._gemma_structure(rule, kinds, place)
            return False
        whole = {**value, "$defs": self._definitions} if self._definitions and isinstance(value, dict) else value
        self._grammars.append({**compiled(whole), "name": f"{rule}_json"})
        self._rules.append(f"{rule}: @{rule}_json {self._closing(name)}\n")
        return is_text

    def _closing(self, name: str) -> str:
        return self._marks.lark(self._tags[1].replace("{key}", name)) if self._tags is not None else ""

    def _text_value(self, rule: str, name: str = "") -> None:
        """Add the rule of any text up to the closing tag."""
        assert self._tags is not None  # noqa: S101
        self._rules.append(self._marks.text_until(rule, self._tags[1].replace("{key}", name)))

    def _elements(self, rule: str, kinds: list[Schema], place: str, name: str) -> None:
        """Add the rule of an object or a list as elements: by its schema if that is plain, otherwise any elements."""
        assert self._tags is not None  # noqa: S101
        parts: list[str] = []
        for at, kind in enumerate(kinds):
            prefix = f"{rule}_{at}"
            properties, required = kind.get("properties", {}), set(kind.get("required", ()))
            named = bool(properties) and all(_NAMES["tags"].fullmatch(each) for each in properties)
            if kind.get("type") == "object" and named and not (kind.keys() - _SHAPE or required - {*properties}):
                parts.append(self._sequence(f"{prefix}x", properties, required, place))
            elif kind.get("type") == "array" and kind.keys() <= _LIST and "items" in kind:
                self._value(f"{prefix}item", kind["items"], f"{place}.items", "item")
                item = self._argument("item", f"{prefix}item", text=False)
                most = "" if kind.get("maxItems") is None else int(kind["maxItems"])
                parts.append(f"({item}){{{int(kind.get('minItems', 0))},{most}}}")
            else:
                self._relaxed.append(place)
                if _types(kind) & {"object", "array"}:
                    parts.append(f"{self._any_element()}*")
                if _types(kind) - {"object", "array"}:
                    self._grammars.append({**compiled({"type": ["number", "boolean"]}), "name": f"{prefix}_json"})
                    parts.append(f"@{prefix}_json")
        self._rules.append(f"{rule}: ({' | '.join(parts)}) {self._closing(name)}\n")

    def _any_element(self) -> str:
        """Return the rule of an element with any name, text and elements, which is added once."""
        assert self._tags is not None  # noqa: S101
        rule = f"element{self._number}"
        if not any(each.startswith(f"{rule}:") for each in self._rules):
            before, _, behind = self._tags[1].partition("{key}")
            end = f"{_ANY_NAME['tags']} {self._marks.lark(behind)}"
            inner = f"({rule}_text {end} | {rule}+ {self._marks.lark(before)} {end})"
            opening, _, opened = self._tags[0].partition("{key}")
            self._rules.append(
                f"{rule}: {self._marks.lark(opening)} {_ANY_NAME['tags']} {self._marks.lark(opened)} {inner}\n"
            )
            self._rules.append(self._marks.text_until(f"{rule}_text", before))
        return rule

    def _literal(self, member: object) -> str:
        """Return one of the values that a schema lists."""
        if self._syntax == "tags" or not isinstance(member, str):
            text = member if isinstance(member, str) else json.dumps(member, ensure_ascii=False)
            return json.dumps(text, ensure_ascii=False)
        if self._syntax == "python":
            return json.dumps(json.dumps(member, ensure_ascii=False), ensure_ascii=False)
        return self._marks.lark(self._mark + member + self._mark)

    def _gemma_text(self, rule: str) -> None:
        self._rules.append(f"{rule}: {self._marks.lark(self._mark)} {rule}_text\n")
        self._rules.append(self._marks.text_until(f"{rule}_text", self._mark))

    def _gemma_structure(self, rule: str, kinds: list[Schema], place: str) -> None:
        """Add the rule of an object or a list: by its schema if that is plain, otherwise any of that type."""
        parts: list[str] = []
        for at, kind in enumerate(kinds):
            properties, required = kind.get("properties"), set(kind.get("required", ()))
            if kind.get("type") == "object" and properties and not (kind.keys() - _SHAPE or required - {*properties}):
                parts.append(f'"{{" {self._members(f"{rule}_{at}x", properties, required, place)} "}}"')
            elif kind.get("type") == "array" and kind.keys() <= _LIST and "items" in kind:
                self._value(f"{rule}_{at}item", kind["items"], f"{place}.items")
                parts.append(_list_of(f"{rule}_{at}item", int(kind.get("minItems", 0)), kind.get("maxItems")))
            else:
                self._relaxed.append(place)
                any_ = self._any_gemma()
                for name in sorted(_types(kind)):
                    parts.append(f"{any_}_{name}" if name in ("object", "array") else f"{any_}_plain")
        self._rules.append(f"{rule}: {' | '.join(dict.fromkeys(parts))}\n")

    def _any_gemma(self) -> str:
        """Return the prefix of the rules of any value, which are added once."""
        prefix = f"gemma{self._number}"
        if any(rule.startswith(f"{prefix}_object:") for rule in self._rules):
            return prefix
        value = f"{prefix}_value"
        member = f'{_ANY_NAME["gemma"]} ":" {value}'
        self._rules.append(f'{prefix}_object: "{{" ({member} ("," {member})*)? "}}"\n')
        self._rules.append(f'{prefix}_array: "[" ({value} ("," {value})*)? "]"\n')
        self._rules.append(f"{value}: {prefix}_object | {prefix}_array | {prefix}_plain | {prefix}_string\n")
        self._gemma_text(f"{prefix}_string")
        self._grammars.append({**compiled({"type": ["number", "boolean", "null"]}), "name": f"{prefix}_json"})
        self._rules.append(f"{prefix}_plain: @{prefix}_json\n")
        return prefix


def _list_of(item: str, least: int, most: int | None) -> str:
    """Return the rule of a list with this many items."""
    if most == 0:
        return '"[]"'
    further = f'("," {item}){{{max(least - 1, 0)},{"" if most is None else int(most) - 1}}}'
    return f'"[" {item} {further} "]"' if least else f'"[" ({item} {further})? "]"'


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
    """Return the types of values that a schema allows, as far as it names them."""
    if "enum" in node:
        return {name for name in TYPES for member in node["enum"] if is_type(member, name)}
    types = node.get("type", list(TYPES))
    return {types} if isinstance(types, str) else set(types)
