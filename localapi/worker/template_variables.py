"""The variables that a chat template reads, as far as its text tells. Needs no template library."""

from __future__ import annotations

import re
from typing import Final

_CODE: Final = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def reads(template: str, variable: str) -> bool:
    """Return True if the template reads a variable: not a word of its text, nor a field of something else."""
    name = re.compile(rf"(?<![.\w]){variable}\b(?!\s*=[^=])")
    return any(name.search(_TEXT.sub("''", code)) for code in _CODE.findall(template))
