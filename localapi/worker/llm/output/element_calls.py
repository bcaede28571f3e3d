"""Calls whose arguments are nested elements, with a mark before every tag, as MiniMax M3 writes them.

`]<]minimax[>[<city>Paris]<]minimax[>[</city>`: thanks to the mark, text needs no escapes. An object's members are
elements, and so are a list's items, which are named `item`. The tool's schema defines the type of anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from localapi.worker.llm.output.argument_values import allows, converted, item_schema, json_text, property_schema
from localapi.worker.llm.output.sections import Calls

_INVOKE: Final = re.compile(r"invoke\s+name\s*=\s*(?P<quote>[\"']?)(?P<name>[^\"'<>]+)(?P=quote)")
_TAG: Final = re.compile(r"<(?P<tag>[^<>]+)>")
_ITEM: Final = "item"
_DEEPEST: Final = 64
Element = str | list[tuple[str, Any]]
"""The text of an element, or the names and elements in it."""


def read(text: str, mark: str, calls: Calls) -> list[tuple[str, str, object]]:
    """Return a call as name, arguments in JSON and no id. Raise ValueError if the text is anything else."""
    before, *pieces = text.split(mark)
    tags = map(_split, pieces)
    tag, behind = next(tags, ("", ""))
    head = _INVOKE.fullmatch(tag)
    if before.strip() or head is None or head["name"] not in calls.schemas:
        raise ValueError("no call of a tool")
    schema = calls.schemas[head["name"]]
    element = _element("invoke", behind, tags)
    if any(tags):
        raise ValueError("text after a call")
    return [(head["name"], _json(element if isinstance(element, list) else [], schema, schema), None)]


def _split(piece: str) -> tuple[str, str]:
    """Return the inside of a tag and the text behind it."""
    found = _TAG.match(piece)
    if found is None:
        raise ValueError("no tag")
    return found["tag"], piece[found.end() :]


def _element(name: str, text: str, tags: Iterator[tuple[str, str]], depth: int = 0) -> Element:
    """Return the element whose opening tag came before this text, up to its closing tag."""
    members: list[tuple[str, Element]] = []
    if depth > _DEEPEST:
        raise ValueError("elements are nested too deeply")
    for tag, behind in tags:
        if tag == f"/{name}":
            if members and text.strip():
                raise ValueError("text beside elements")
            return members or text
        if tag.startswith("/"):
            raise ValueError("an element is not closed")
        members.append((tag, _element(tag, behind, tags, depth + 1)))
    raise ValueError("an element has no end")


def _json(element: Element, schema: Any, root: Any) -> str:
    """Return the value of an element in JSON."""
    is_list, is_object = allows("array", "[]", schema, root), allows("object", "{}", schema, root)
    if isinstance(element, str):
        if not element.strip() and not allows("string", '""', schema, root):
            return "[]" if is_list else "{}" if is_object else converted(element, schema, root)
        return converted(element, schema, root)
    if is_list and (not is_object or all(name == _ITEM for name, _ in element)) and element:
        item = item_schema(schema, root)
        return f"[{', '.join(_json(each, item, root) for _, each in element)}]"
    members: dict[str, list[str]] = {}
    for name, each in element:
        members.setdefault(name, []).append(_json(each, property_schema(name, schema, root), root))
    written = []
    for name, values in members.items():
        value = values[0] if len(values) == 1 else f"[{', '.join(values)}]"  # a name that is repeated is a list
        written.append(f"{json_text(name)}: {value}")
    return "{" + ", ".join(written) + "}"
