"""Calls whose arguments are text between tags, as in `<parameter=city>Paris</parameter>`: from text to JSON.

Such formats escape nothing: a value may hold the very tags that end it, a whole call as an example even. A closing tag
ends a value if what follows can follow a value, and if as many tags were closed within the value as were opened there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from localapi.worker.llm.output.argument_values import converted, property_schema

_ATTRIBUTE: Final = r"\s*=\s*(?P<{}>\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+)[^<>]*>"
_CDATA: Final = re.compile(r"\s*<!\[CDATA\[(?P<value>.*?)\]\]>\s*</param>", re.DOTALL)
"""A value of MiniCPM5 that holds `<`, `&` or a newline."""


class NotCalls(Exception):
    """The text is not calls, or no call is complete."""


@dataclass(frozen=True)
class Tags:
    """The tags of one family."""

    call: re.Pattern[str]
    """The start of a call, with its `name`."""
    call_end: str
    """The end of a call; empty if the section's end also ends it."""
    argument: re.Pattern[str]
    """The start of an argument, with its `key`."""
    argument_end: str
    newlines: Literal["any", "both", "none"] = "both"
    """Which newlines at the ends of a value belong to the format: any, only one at both ends together, or none."""
    bare: str = ""
    """The start of a call that is written without a section around it; empty if that looks like text."""
    whole_section: bool = False
    """True if the marks around the section are the call's own tags."""


@dataclass(frozen=True)
class TaggedCall:
    """A call as the model wrote it."""

    name: str
    arguments: dict[str, str]
    """Text by key."""


@dataclass(frozen=True)
class Reading:
    """The calls of a text, and how certain they are."""

    calls: list[TaggedCall]
    rest: str
    """Text after the calls that is not a call."""
    certain: bool
    """True if tags are closed in the order in which they were opened. If not, the call may go on."""
    likely: bool
    """True if at least the tags of calls, or those of arguments, are: then one was forgotten, or is only mentioned."""


def _named(tag: str, group: str) -> re.Pattern[str]:
    """Return the pattern of `<tag name="...">`."""
    return re.compile(rf"<{tag}\s+name" + _ATTRIBUTE.format(group))


def _keyed(prefix: str) -> Tags:
    """Return the tags of `name<arg_key>key</arg_key><arg_value>value</arg_value>`."""
    return Tags(
        call=re.compile(rf"(?P<name>[^\s<>{{}}\[\]\"]+)\s*(?=<{prefix}arg_key>|\Z)"),
        call_end="",
        argument=re.compile(
            rf"<{prefix}arg_key>\s*(?P<key>[^<>]+?)\s*</{prefix}arg_key>(?:\\n|\s)*<{prefix}arg_value>"
        ),
        argument_end=f"</{prefix}arg_value>",
    )


TAGS: Final = {
    "qwen3_coder": Tags(
        call=re.compile(r"<function=(?P<name>[^\s<>]+)>"),
        call_end="</function>",
        argument=re.compile(r"<parameter=(?P<key>[^\s<>]+)>"),
        argument_end="</parameter>",
        newlines="any",
        bare="<function=",
    ),
    "minimax_m2": Tags(
        call=_named("invoke", "name"),
        call_end="</invoke>",
        argument=_named("parameter", "key"),
        argument_end="</parameter>",
        bare="<invoke name=",
    ),
    "muse_spark": Tags(
        call=_named("atem:invoke", "name"),
        call_end="</atem:invoke>",
        argument=_named("atem:parameter", "key"),
        argument_end="</atem:parameter>",
        newlines="none",
        bare="<atem:invoke name=",
    ),
    "minicpm5": Tags(
        call=_named("function", "name"),
        call_end="</function>",
        argument=_named("param", "key"),
        argument_end="</param>",
        whole_section=True,
    ),
    "glm47": _keyed(""),
    "longcat": _keyed("longcat_"),
}
"""The families of mlx-lm's parsers that write values as text between tags. Laguna uses GLM's."""


def read(text: str, tags: Tags, tools: Sequence[dict[str, Any]], *, closed: bool) -> Reading:
    """Return the calls of a section's text. Raises NotCalls if it does not begin with one.

    `closed`: the model has ended the section, so the tag that ends the last call may be missing.
    """
    calls: list[TaggedCall] = []
    certain, likely = True, bool(tags.call_end)
    at = _behind_space(text, 0)
    while at < len(text):
        start = tags.call.match(text, at)
        if start is None:
            break
        name = _unquoted(start["name"])
        known = parameters(name, tools)
        if known is None:
            break
        try:
            body, behind, sure = _body(text, start.end(), tags, closed=closed)
            arguments, balanced = _arguments(body, tags, known)
        except NotCalls:
            certain = likely = False
            break
        calls.append(TaggedCall(name, arguments))
        certain = certain and sure and balanced
        likely = likely and (sure or balanced)
        at = _behind_space(text, behind)
    if not calls:
        raise NotCalls
    return Reading(calls, text[at:], certain, likely)


def begins_call(text: str, tags: Tags, tools: Sequence[dict[str, Any]]) -> bool:
    """Return True if a call of one of the tools and its first argument begin here: then a value may go on."""
    start = tags.call.match(text, _behind_space(text, 0))
    if start is None or parameters(_unquoted(start["name"]), tools) is None:
        return False
    return tags.argument.match(text, _behind_space(text, start.end())) is not None


def name_of_call(text: str, tags: Tags) -> str | None:
    """Return the name of the call that begins here; None if there is none."""
    start = tags.call.match(text, _behind_space(text, 0))
    return None if start is None else _unquoted(start["name"])


def parameters(name: str, tools: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the schema of a tool's arguments; None if there is no such tool."""
    for tool in tools:
        if tool["function"].get("name") == name:
            schema: dict[str, Any] = tool["function"]["parameters"]
            return schema
    return None


def as_json(call: TaggedCall, schema: dict[str, Any]) -> str:
    """Return the arguments as JSON of the types that the schema asks for."""
    members = [
        f"{json.dumps(key, ensure_ascii=False)}: {converted(text, property_schema(key, schema, schema), schema)}"
        for key, text in call.arguments.items()
    ]
    return "{" + ", ".join(members) + "}"


def _body(text: str, at: int, tags: Tags, *, closed: bool) -> tuple[str, int, bool]:
    """Return the inside of a call, where the text after it begins, and whether that is certain. Raises NotCalls."""
    if not tags.call_end:
        return text[at:], len(text), True
    end, balanced = _end(text, at, tags.call, tags.call_end, rf"\s*(?:\Z|{tags.call.pattern})")
    if end is not None:
        return text[at:end], end + len(tags.call_end), balanced
    if not closed:
        raise NotCalls
    return text[at:], len(text), True


def _arguments(body: str, tags: Tags, schema: dict[str, Any]) -> tuple[dict[str, str], bool]:
    """Return the arguments by key, and whether all tags are closed as they were opened. Raises NotCalls."""
    arguments: dict[str, str] = {}
    certain = True
    at = _behind_space(body, 0)
    while at < len(body):
        start = tags.argument.match(body, at)
        if start is None:
            raise NotCalls
        key = _unquoted(start["key"])
        cdata = _CDATA.match(body, start.end()) if tags.argument_end == "</param>" else None
        if cdata is not None:
            value, at = cdata["value"], cdata.end()
        else:
            end, at, balanced = _value_end(body, start.end(), tags, set(schema["properties"]) - {*arguments, key})
            value = _without_newlines(body[start.end() : end], tags.newlines)
            certain = certain and balanced
        arguments[key] = value
        at = _behind_space(body, at)
    return arguments, certain


def _value_end(body: str, at: int, tags: Tags, missing: set[str]) -> tuple[int, int, bool]:
    """Return where a value ends, where the text after it begins, and whether its tags are balanced.

    `missing`: keys that may still come. If a model forgets to close a value, the next of them ends it. Raises NotCalls.
    """
    end, balanced = _end(body, at, tags.argument, tags.argument_end, rf"\s*(?:\Z|{tags.argument.pattern})")
    if end is not None and balanced:
        return end, end + len(tags.argument_end), True
    for following in tags.argument.finditer(body, at, len(body) if end is None else end):
        if _unquoted(following["key"]) in missing and body[: following.start()].endswith("\n"):
            return following.start(), following.start(), False
    if end is not None:
        return end, end + len(tags.argument_end), False
    if not tags.call_end:
        raise NotCalls
    return len(body), len(body), False


def _end(text: str, at: int, opening: re.Pattern[str], closing: str, follows: str) -> tuple[int | None, bool]:
    """Return where the closing tag of what was opened before begins, and whether the tags inside are balanced.

    If no closing tag is balanced, it is the first one that is followed by the right text.
    """
    tag = re.compile(rf"(?P<closing>{re.escape(closing)})|{opening.pattern}")
    behind = re.compile(follows)
    first: int | None = None
    open_tags = 0
    for found in tag.finditer(text, at):
        if found["closing"] is None:
            open_tags += 1
            continue
        if behind.match(text, found.end()):
            if not open_tags:
                return found.start(), True
            first = found.start() if first is None else first
        open_tags = max(0, open_tags - 1)
    return first, False


def _without_newlines(value: str, newlines: Literal["any", "both", "none"]) -> str:
    if newlines == "any":
        return value.removeprefix("\n").removesuffix("\n")
    if newlines == "both" and len(value) > 1 and value.startswith("\n") and value.endswith("\n"):
        return value[1:-1]
    return value


def _unquoted(name: str) -> str:
    return name[1:-1] if name[:1] in ("'", '"') else name


def _behind_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
