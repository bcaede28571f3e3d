"""Write values as YAML as a person would: on one line, and in quotes only if necessary."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from localapi.manifest.scalars import resolve

_PLAIN = re.compile(r"[A-Za-z0-9_./][\w./@+-]*", re.ASCII)
_OTHER_BOOLEANS = frozenset({"y", "n", "yes", "no", "on", "off"})
"""Texts that are booleans in YAML 1.1."""
_ESCAPED = re.compile("[\x7f-\xa0\u2028\u2029\ufeff]")


def in_yaml(value: object) -> str:  # noqa: PLR0911  # one for each kind of value
    """Return a value on one line that reads as the same value. Raise TypeError if YAML has no form for it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _number(value)
        case str():
            return _text(value)
        case Mapping():
            return "{" + ", ".join(f"{_text(str(key))}: {in_yaml(part)}" for key, part in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(map(in_yaml, value)) + "]"
    raise TypeError(f"{type(value).__name__} cannot be written")


def block_lines(key: str, options: Mapping[str, object], indent: int, step: int) -> list[str]:
    """Return the lines of a mapping with one key, and one line for each of its options."""
    lines = [f"{' ' * indent}{_text(key)}:"]
    return lines + [f"{' ' * (indent + step)}{_text(name)}: {in_yaml(value)}" for name, value in options.items()]


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and resolve(text) == text and text.lower() not in _OTHER_BOOLEANS:
        return text
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
