"""Read plain YAML scalars, and write values as a person would: on one line, in quotes only if necessary.

Plain scalars are resolved by the core schema of YAML 1.2, without octal and hexadecimal numbers.

Only true and false are booleans, so `voice: no` is the text "no". A date or `12:30` is text as well.
https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from localapi.manifest.origin import Plain

REFERENCE: Final = r"\$\{env\.[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"
"""Pattern of a reference to a variable, also used in the JSON Schema."""

_WORDS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_WHOLE = re.compile(r"[-+]?[0-9]{1,100}")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_PLAIN = re.compile(r"[A-Za-z0-9_./][\w./@+-]*", re.ASCII)
_OTHER_BOOLEANS = frozenset({"y", "n", "yes", "no", "on", "off"})
"""Texts that are booleans only in YAML 1.1."""
_ESCAPED = re.compile("[\x7f-\xa0\u2028\u2029\ufeff]")


def resolve(text: str) -> Plain:
    """Return the value of a scalar that was written without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    return text


def in_yaml(value: object) -> str:  # noqa: PLR0911  # one for each kind of value
    """Return a value on one line that reads as the same value. Raise TypeError if YAML has no form for it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case float():
            return ".nan" if math.isnan(value) else f"{'-' * (value < 0)}.inf"
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{_text(str(key))}: {in_yaml(part)}" for key, part in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(map(in_yaml, value)) + "]"
    raise TypeError(f"{type(value).__name__} cannot be written")


def on_line(value: object) -> str:
    """Return a value for the rest of a line, outside brackets. A reference without quotes may become any scalar."""
    if isinstance(value, str) and re.fullmatch(REFERENCE, value):
        return value
    return in_yaml(value)


def block_lines(key: str, value: object, indent: int, step: int, *, levels: int = 1) -> list[str]:
    """Return the lines of a key and its value; this many levels of mappings are written with one line per key."""
    head = f"{' ' * indent}{_text(key)}:"
    if levels == 0 or not isinstance(value, Mapping) or not value:
        return [f"{head} {on_line(value)}"]
    lines = [head]
    for name, part in value.items():
        lines += block_lines(str(name), part, indent + step, step, levels=levels - 1)
    return lines


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and resolve(text) == text and text.lower() not in _OTHER_BOOLEANS:
        return text
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
