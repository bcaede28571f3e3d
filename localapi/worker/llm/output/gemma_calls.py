"""Gemma's calls: `call:name{city:<|"|>Paris<|"|>,days:3}`, with objects and lists inside.

Only strings are marked. The tool's schema defines the type of any other value.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from localapi.worker.llm.output.argument_values import converted, item_schema, json_text, property_schema, text_value
from localapi.worker.llm.output.sections import Calls, behind_space

_CALL: Final = re.compile(r"\s*call:(?P<name>[^\s{}]+?)\s*(?=\{)")
_KEY: Final = re.compile(r"\s*(?P<key>[^\s:,{}\[\]<>\"]+)\s*:\s*")
_BARE_ITEM: Final = re.compile(r"[^,{}\[\]]*(?=[,}\]])")
_JSON_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def read(text: str, string_mark: str, calls: Calls) -> tuple[list[tuple[str, str, object]], str]:
    """Return the calls as name, arguments in JSON and no id, and the text after them that is not a call."""
    found: list[tuple[str, str, object]] = []
    at = 0
    while (start := _CALL.match(text, at)) is not None and start["name"] in calls.schemas:
        schema = calls.schemas[start["name"]]
        try:
            arguments, at = _Value(text, string_mark, schema).read(start.end(), schema)
        except (ValueError, RecursionError):
            break
        found.append((start["name"], arguments, None))
    return found, text[at:].strip()


class _Value:
    """Reader of values in a text, each as JSON with its end. Raise ValueError for an incomplete one."""

    def __init__(self, text: str, string_mark: str, root: Any) -> None:
        self._text = text
        self._mark = string_mark
        self._root = root
        # A value without marks may contain commas; it ends where the next key begins.
        key = rf"(?:{re.escape(string_mark)}|[^\s:,{{}}\[\]]+\s*:)"
        self._bare_member = re.compile(rf"[^{{}}\[\]]*?(?=,\s*{key}|[}}\]])")

    def read(self, at: int, schema: Any, bare: re.Pattern[str] | None = None) -> tuple[str, int]:
        """Return the value that begins here, and where it ends. `bare` is the pattern of a value without marks."""
        if self._text.startswith("{", at):
            return self._object(at + 1, schema)
        if self._text.startswith("[", at):
            return self._array(at + 1, schema)
        if self._text.startswith(self._mark, at):
            string, end = self._string(at)
            return text_value(string, schema, self._root), end
        found = _JSON_STRING.match(self._text, at)
        if found is not None:
            return json.dumps(json.loads(found[0], strict=False)), found.end()
        found = (bare or self._bare_member).match(self._text, at)
        if found is None:
            raise ValueError("a value has no end")
        return converted(found[0].strip(), schema, self._root), found.end()

    def _object(self, at: int, schema: Any) -> tuple[str, int]:
        members: dict[str, str] = {}
        at = behind_space(self._text, at)
        while not self._text.startswith("}", at):
            key, at = self._key(at)
            members[key], at = self.read(at, property_schema(key, schema, self._root))
            at = self._behind_comma(at, "}")
        text = ", ".join(f"{json_text(key)}: {value}" for key, value in members.items())
        return f"{{{text}}}", at + 1

    def _array(self, at: int, schema: Any) -> tuple[str, int]:
        items = []
        item = item_schema(schema, self._root)
        at = behind_space(self._text, at)
        while not self._text.startswith("]", at):
            value, at = self.read(at, item, _BARE_ITEM)
            items.append(value)
            at = self._behind_comma(at, "]")
        return "[" + ", ".join(items) + "]", at + 1

    def _key(self, at: int) -> tuple[str, int]:
        if self._text.startswith(self._mark, at):
            key, at = self._string(at)
            at = behind_space(self._text, at)
            if not self._text.startswith(":", at):
                raise ValueError("a key without a value")
            return key, behind_space(self._text, at + 1)
        found = _KEY.match(self._text, at)
        if found is None:
            raise ValueError("no key")
        return found["key"], found.end()

    def _string(self, at: int) -> tuple[str, int]:
        start = at + len(self._mark)
        end = self._text.index(self._mark, start)
        return self._text[start:end], end + len(self._mark)

    def _behind_comma(self, at: int, closing: str) -> int:
        at = behind_space(self._text, at)
        if self._text.startswith(",", at):
            return behind_space(self._text, at + 1)
        if not self._text.startswith(closing, at):
            raise ValueError(f"neither a comma nor {closing}")
        return at
