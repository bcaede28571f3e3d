"""Lines of a file around a problem, as they were when the file was read.

A manifest should not contain secrets, but may contain one by mistake. So lines below `api_keys`, `key` and `headers`,
and values that look like secrets, are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from localapi.errors import MOST_SHOWN, Excerpt, Problem
from localapi.manifest.lines import BREAK

AROUND: Final = 3
"""Lines to show before and after the line of the problem."""
MOST: Final = 20
"""Maximum problems with an excerpt."""
LONGEST: Final = 200
"""Maximum characters of a line."""
_LONG_WORD: Final = re.compile(rf"\S{{{MOST_SHOWN + 1},}}")
"""Word too long to show, such as a recording in base64."""
HIDDEN: Final = "········"
PASSWORD: Final = re.compile(r"://[^/\s@]+@")
"""User name and password in an address."""
_KEYS: Final = re.compile(r"""api[_-]?keys?\b|\b(?:key|headers)\b(?=["']?\s*:)""", re.IGNORECASE)
SECRET: Final = re.compile(
    r"""(?:\w*(?:secret|passw(?:or)?d|api[_-]?key|credential)s?|(?:\w+[_-])?token)["']?\s*:""", re.IGNORECASE
)


def with_excerpts(problems: Sequence[Problem], texts: Mapping[str, str]) -> list[Problem]:
    """Return the problems, with excerpts for those in one of these texts (by source)."""
    lines = {source: shown_lines(text) for source, text in texts.items()}
    found: list[Problem] = []
    for problem in problems:
        if len(found) < MOST and problem.line is not None and problem.source in lines:
            first = max(1, problem.line - AROUND)  # lines count from 1, and the number may be past the end of the file
            around = lines[problem.source][first - 1 : problem.line + AROUND]
            found.append(replace(problem, excerpt=Excerpt(first, tuple(around))))
        else:
            found.append(problem)
    return found


def shown_lines(text: str) -> list[str]:
    """Return all lines with secrets hidden and long words shortened."""
    text = PASSWORD.sub(f"://{HIDDEN}@", text)
    lines = [_LONG_WORD.sub(lambda word: f"{word[0][: MOST_SHOWN - 1]}…", line) for line in BREAK.split(text)]
    return [line if len(line) <= LONGEST else f"{line[:LONGEST]}…" for line in _without_secrets(lines)]


def _without_secrets(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines with secrets hidden.

    Lines below `api_keys` are those with a deeper indentation, and those inside brackets that were opened there.
    """
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
        elif found := SECRET.search(line[:LONGEST]):  # the rest is cut off anyway, and searching it is slow
            yield f"{line[: found.end()]} {HIDDEN}"
        else:
            yield line


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _opened(text: str) -> int:
    """Return the number of unclosed brackets. Quotes are ignored: hiding too much does no harm."""
    return sum(text.count(bracket) for bracket in "{[") - sum(text.count(bracket) for bracket in "}]")
