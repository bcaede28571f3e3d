"""Calls as a Python list: `[get_weather(city="Paris", days=2), now()]`, as LFM2 and others write them.

Nearly all of it is Python or JSON. But templates put text between quotes unchanged, with newlines, quotes and
backslashes, and models learn that. Such a text ends at the first quote after which an argument or the call ends.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any, Final

from localapi.worker.llm.output.argument_values import converted, json_text, property_schema, text_value
from localapi.worker.llm.output.sections import Calls, behind_space

_CALL: Final = re.compile(r"\s*(?P<name>[\w.]+)\(\s*")
_KEY: Final = re.compile(r"(?P<key>\w+)\s*=\s*")
_BEHIND_VALUE: Final = r"\s*(?:,\s*\w+\s*=|\)\s*(?:,\s*[\w.]+\(|\]\s*\Z))"
"""Text behind a value: the next argument, or the end of the call and then the next one or the end of the list."""
_QUOTE: Final = {quote: re.compile(rf"{quote}(?={_BEHIND_VALUE})") for quote in "\"'"}
_OTHER: Final = re.compile(rf"[^\"'\[\](){{}}]+?(?={_BEHIND_VALUE})")
_BRACKET: Final = re.compile(r"[\[\](){}]|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_WORDS: Final = {"true": True, "false": False, "null": None}


def read(text: str, calls: Calls) -> list[tuple[str, str, object]]:
    """Return the calls as name, arguments in JSON and no id. Raises ValueError if the text is anything else."""
    found: list[tuple[str, str, object]] = []
    at = behind_space(text, 0)
    if not text.startswith("[", at):
        raise ValueError("no list")
    at += 1
    while True:
        head = _CALL.match(text, at)
        if head is None or head["name"] not in calls.schemas:
            raise ValueError("no call of a tool")
        arguments, at = _arguments(text, head.end(), calls.schemas[head["name"]])
        found.append((head["name"], arguments, None))
        at = behind_space(text, at)
        if text.startswith(",", at):
            at += 1
        elif text.startswith("]", at) and not text[at + 1 :].strip():
            return found
        else:
            raise ValueError("neither another call nor the end of the list")


def may_begin(text: str, calls: Calls) -> bool:
    """Return True if a list of calls begins here, or could if the text goes on."""
    name, parenthesis, _ = text.lstrip().removeprefix("[").lstrip().partition("(")
    return name in calls.schemas if parenthesis else any(each.startswith(name) for each in calls.schemas)


def _arguments(text: str, at: int, schema: Any) -> tuple[str, int]:
    """Return the arguments that begin here, as a JSON object, and the end of their call."""
    members: dict[str, str] = {}
    while not text.startswith(")", at):
        key = _KEY.match(text, at)
        if key is None:
            raise ValueError("no argument with a name")
        value, at = _value(text, key.end(), property_schema(key["key"], schema, schema), schema)
        members[key["key"]] = value
        at = behind_space(text, at)
        if text.startswith(",", at):
            at = behind_space(text, at + 1)
        elif not text.startswith(")", at):
            raise ValueError("neither another argument nor the end of the call")
    return "{" + ", ".join(f"{json_text(key)}: {value}" for key, value in members.items()) + "}", at + 1


def _value(text: str, at: int, schema: Any, root: Any) -> tuple[str, int]:
    """Return the value that begins here, as JSON, and its end."""
    first = text[at : at + 1]
    if first and first in "\"'":
        end = _end_of_text(text, at, first)
        written = text[at:end]
        value = _python(written)
        return text_value(value if isinstance(value, str) else written[1:-1], schema, root), end
    if first and first in "[{(":
        end = _end_of_brackets(text, at)
        return _json(text[at:end]), end
    found = _OTHER.match(text, at)
    if found is None:
        raise ValueError("a value has no end")
    written = found[0].strip()
    if written in ("None", "True", "False"):
        return json_text(_python(written)), found.end()
    return converted(written, schema, root), found.end()


def _end_of_text(text: str, at: int, quote: str) -> int:
    """Return the end of a text between quotes: Python's if something valid follows it, otherwise where one can be."""
    plain = _BRACKET.match(text, at)
    if plain is not None and re.compile(_BEHIND_VALUE).match(text, plain.end()):
        return plain.end()
    found = _QUOTE[quote].search(text, at + 1)
    if found is None:
        raise ValueError("a text has no end")
    return found.end()


def _end_of_brackets(text: str, at: int) -> int:
    depth = 0
    for found in _BRACKET.finditer(text, at):
        if found[0] in "[({":
            depth += 1
        elif found[0] in "])}":
            depth -= 1
        if depth == 0:
            return found.end()
    raise ValueError("brackets are not closed")


def _json(written: str) -> str:
    """Return an object or a list in JSON. Raises ValueError if it is neither JSON nor Python."""
    try:
        return json_text(json.loads(written, strict=False))
    except (ValueError, RecursionError):
        value = _python(written)
        if value is None:
            raise ValueError("neither JSON nor Python") from None
        return json_text(value)


def _python(written: str) -> Any:
    """Return the value of a Python literal, also with JSON's words; None if it is not a literal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\\d"
            tree = ast.parse(written, mode="eval")
        return ast.literal_eval(_Words().visit(tree))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


class _Words(ast.NodeTransformer):
    """Replace JSON's words by Python's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in _WORDS:
            return ast.copy_location(ast.Constant(_WORDS[node.id]), node)
        return node
