"""The lines of a file around what is wrong in it, as they were when it was read.

A manifest holds no secrets, but somebody may have put one where it does not belong. So what stands below `api_keys`,
and what looks like the value of a secret, is not repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from localapi.errors import MOST_SHOWN, Excerpt, Problem
from localapi.manifest.lines import BREAK

AROUND: Final = 3
"""Lines before and after the one that is meant."""
MOST: Final = 20
"""Problems that get an excerpt; whoever has more mends these first."""
LONGEST: Final = 200
"""Characters of a line."""
_LONG_WORD: Final = re.compile(rf"\S{{{MOST_SHOWN + 1},}}")
"""A recording in base64, say."""
HIDDEN: Final = "········"
_KEYS: Final = re.compile(r"api[_-]?keys?\b", re.IGNORECASE)
_SECRET: Final = re.compile(
    r"""(?:\w*(?:secret|passw(?:or)?d|api[_-]?key|credential)s?|(?:\w+[_-])?token)["']?\s*:""", re.IGNORECASE
)


def with_excerpts(problems: Sequence[Problem], texts: Mapping[str, str]) -> list[Problem]:
    """The problems, each with its lines where it has a place in one of these texts, which are named as its source."""
    lines = {source: _shown(text) for source, text in texts.items()}
    return [
        replace(problem, excerpt=_around(lines[problem.source], problem.line))
        if number < MOST and problem.line is not None and problem.source in lines
        else problem
        for number, problem in enumerate(problems)
    ]


def _around(lines: Sequence[str], line: int) -> Excerpt:
    """`line` counts from 1, and may be one after the last: there the parser missed something."""
    first = max(1, line - AROUND)
    return Excerpt(first, tuple(lines[first - 1 : line + AROUND]))


def _shown(text: str) -> list[str]:
    """All lines as they may be shown."""
    lines = [_LONG_WORD.sub(lambda word: f"{word[0][: MOST_SHOWN - 1]}…", line) for line in BREAK.split(text)]
    return [line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in _without_secrets(lines)]


def _without_secrets(lines: Sequence[str]) -> Iterator[str]:
    """Below `api_keys` are the lines that are indented further, and those inside brackets that it opened."""
    indent, depth = None, 0
    for line in lines:
        if indent is not None and (depth > 0 or _indent(line) > indent or not line.strip()):
            depth += _opened(line)
            yield " " * _indent(line) + HIDDEN if line.strip() else line
            continue
        indent, depth = None, 0
        if found := _KEYS.search(line):
            indent, depth = _indent(line), _opened(line[found.end() :])
            end = line.find(":", found.end()) + 1 or found.end()
            yield line[:end] + (f" {HIDDEN}" if line[end:].strip() else "")
        elif found := _SECRET.search(line[:LONGEST]):  # what is cut off is not shown; on a whole line it takes too long
            yield f"{line[: found.end()]} {HIDDEN}"
        else:
            yield line


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _opened(text: str) -> int:
    """Brackets that are opened and not closed; quotes are not looked at, as what is hidden too much harms nobody."""
    return sum(text.count(bracket) for bracket in "{[") - sum(text.count(bracket) for bracket in "}]")
