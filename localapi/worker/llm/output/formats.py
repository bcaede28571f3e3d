"""The formats of tool calls: one row for each family of models, by the name of mlx-lm's parser for it.

A row says what is between the marks that start and end a section of calls, which the tokenizer knows. mlx-lm's parser
alone reads a family without a row.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Tags:
    """The tags around a call and its arguments, whose values are plain text."""

    call: re.Pattern[str]
    """The start of a call, with its `name`."""
    call_end: str
    """The end of a call; empty if the section's end also ends it."""
    argument: re.Pattern[str]
    """The start of an argument, with its `key`."""
    argument_end: str
    newlines: Literal["any", "both", "none"] = "both"
    """Newlines at the ends of a value that belong to the format: any, only one at both ends together, or none."""
    whole_section: bool = False
    """True if the marks around the section are the call's own tags."""


@dataclass(frozen=True)
class CallFormat:
    """The syntax of one family's calls inside a section."""

    is_json: bool = False
    """True if calls are objects with a name and arguments."""
    tags: Tags | None = None
    string_mark: str = ""
    """The mark around strings, if nothing else is marked."""
    bare: tuple[str, str] = ("", "")
    """The marks around one call if they cannot be mistaken for text: models forget the marks around the section."""
    inner_marks: tuple[str, ...] = ()
    """Marks that mlx-lm's parser reads inside a section and that may be special tokens."""
    border: re.Pattern[str] | None = None
    """The border to split calls at if mlx-lm's parser mixes up or drops calls when one section holds several."""
    unread: str = ""
    """The only argument that mlx-lm's parser returns for text that is not a call."""
    is_python: bool = False
    """True if mlx-lm's parser guesses where values end unless the text is Python."""


def _named(tag: str, group: str) -> re.Pattern[str]:
    """Return the pattern of `<tag name="...">`."""
    return re.compile(rf"<{tag}\s+name\s*=\s*(?P<{group}>\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+)[^<>]*>")


def _keyed(prefix: str, *, unread: str = "") -> CallFormat:
    """Return the format of `name<arg_key>key</arg_key><arg_value>value</arg_value>`."""
    key, key_end, value, value_end = (f"<{mark}>" for mark in (
        f"{prefix}arg_key", f"/{prefix}arg_key", f"{prefix}arg_value", f"/{prefix}arg_value"
    ))  # fmt: skip
    tags = Tags(
        call=re.compile(rf"(?P<name>[^\s<>{{}}\[\]\"]+)\s*(?={key}|\Z)"),
        call_end="",
        argument=re.compile(rf"{key}\s*(?P<key>[^<>]+?)\s*{key_end}(?:\\n|\s)*{value}"),
        argument_end=value_end,
    )
    return CallFormat(tags=tags, inner_marks=(key, key_end, value, value_end), unread=unread)


FORMATS: Final = {
    "json_tools": CallFormat(is_json=True),
    "qwen3_coder": CallFormat(
        tags=Tags(
            call=re.compile(r"<function=(?P<name>[^\s<>]+)>"),
            call_end="</function>",
            argument=re.compile(r"<parameter=(?P<key>[^\s<>]+)>"),
            argument_end="</parameter>",
            newlines="any",
        ),
        bare=("<function=", "</function>"),
    ),
    "minimax_m2": CallFormat(
        tags=Tags(
            call=_named("invoke", "name"),
            call_end="</invoke>",
            argument=_named("parameter", "key"),
            argument_end="</parameter>",
        ),
        bare=("<invoke name=", "</invoke>"),
    ),
    "muse_spark": CallFormat(
        tags=Tags(
            call=_named("atem:invoke", "name"),
            call_end="</atem:invoke>",
            argument=_named("atem:parameter", "key"),
            argument_end="</atem:parameter>",
            newlines="none",
        ),
        bare=("<atem:invoke name=", "</atem:invoke>"),
    ),
    "minicpm5": CallFormat(
        tags=Tags(
            call=_named("function", "name"),
            call_end="</function>",
            argument=_named("param", "key"),
            argument_end="</param>",
            whole_section=True,
        )
    ),
    "glm47": _keyed("", unread="raw"),  # Laguna's, too
    "longcat": _keyed("longcat_"),
    "function_gemma": CallFormat(string_mark="<escape>"),
    "gemma4": CallFormat(string_mark='<|"|>'),
    "kimi_k2": CallFormat(
        bare=("<|tool_call_begin|>", "<|tool_call_end|>"),
        inner_marks=("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        border=re.compile(r"(?<=<\|tool_call_end\|>)\s*(?=<\|tool_call_begin\|>)"),
    ),
    "kimi_k3": CallFormat(
        inner_marks=("<|open|>", "<|close|>", "<|sep|>"),
        border=re.compile(r"(?<=<\|close\|>call<\|sep\|>)\s*(?=<\|open\|>call)"),
    ),
    "mistral": CallFormat(inner_marks=("[ARGS]",)),
    "pythonic": CallFormat(is_python=True),
}

_PYTHONIC: Final = re.compile(
    r"""\s*\[\s*[\w.]+\((?:\s*\w+\s*=(?:\s*"[^"]*"\s*|\s*'[^']*'\s*|[^,"'()\[\]]+)(?:,|(?=\))))*\s*\)\s*\]\s*"""
)
"""A call that is not valid Python (a newline in a string) but whose arguments can still be told apart."""


def is_clear_python(text: str) -> bool:
    """Return True if it is clear where the values in these calls end."""
    if _PYTHONIC.fullmatch(text):
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know, as in "\\d"
            ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True
