"""YAML's syntax errors in plain words: what is wrong at the place, and what to do.

libyaml and PyYAML's own parser word the same error differently; the first pattern found in either decides.
"""

from __future__ import annotations

import yaml

from localapi.errors import Problem

_INDENTATION = (
    "this does not line up with what is above: begin it in the same column as its neighbours, indented with blanks"
)
_TAB = "found a tab; YAML is indented with blanks only"
_MISPLACED = "found {found} where the value should have ended; put text that holds quotes or brackets in quotes"
_UNCLOSED_LIST = "the list that begins at line {line}, column {column} is not closed before this: add a ',' or its ']'"
_UNCLOSED_MAPPING = _UNCLOSED_LIST.replace("list", "mapping").replace("']'", "'}}'")

_AT_START = {
    "could not find expected ':'": "a key with no ':' after it; write `key: value`",
    "unexpected end of stream": "this quote is never closed; add the closing quote",
    "unexpected document separator": "this quote is not closed before the line ---; add the closing quote",
}
"""Errors that are best shown where the thing begins, not where the parser gave up."""

_AT_PLACE = {
    "values are not allowed": (
        "there cannot be a ':' here: check how this line and the one before are indented, put a blank after each ':' "
        "that follows a key, and put text that holds ': ' in quotes"
    ),
    "sequence entries are not allowed": "a list cannot begin here: put each `- item` on a line of its own",
    "found a tab character": _TAB,
    "cannot start any token": "a value cannot begin with {found}; put the text in quotes",
    "',' or ']'": _UNCLOSED_LIST,
    "',' or '}'": _UNCLOSED_MAPPING,
    "node content": "found {found} where a value should be",
    "unknown escape character": "this backslash means nothing in double quotes; use single quotes",
    "escape code": "this escape names no character; use single quotes for a plain backslash",
    "expected hexadecimal": "this escape names no character; use single quotes for a plain backslash",
    "alphabetic or numeric character": "* and & begin an alias or anchor, and no name follows; put the text in quotes",
    "expected key": _INDENTATION,
    "'-' indicator": _INDENTATION,
    "<block end>": _INDENTATION,
    "document start": "nothing may follow the end of the document; remove this",
    "directive": "lines that begin with % are directives, which a manifest does not need; remove this line",
    "incompatible YAML document": "the %YAML line asks for a version that is not supported; remove the line",
    "tag": "tags (words that begin with !) are not supported here; put the text in quotes or remove the tag",
    "comment or line break": "a text block begins on the line after | or >; end this line here",
    "chomping or indentation": "a text block begins on the line after | or >; end this line here",
}


def explain(error: yaml.YAMLError, source: str, text: str) -> Problem:
    """The problem for the operator."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(source, f"is not valid YAML: {' '.join(str(error).split())}")
    problem = error.problem or "it cannot be read"
    mark = error.problem_mark or error.context_mark
    began = error.context_mark or mark
    for pattern, sentence in _AT_START.items():
        if pattern in problem and began:
            return Problem(source, f"not valid YAML: {sentence}", line=began.line + 1, column=began.column + 1)
    if mark is None or began is None:
        return Problem(source, f"is not valid YAML: {problem}")
    raw = problem.replace("{", "{{").replace("}", "}}")
    sentence = next((said for pattern, said in _AT_PLACE.items() if pattern in problem), raw)
    if text[mark.index : mark.index + 1] == "\t":
        sentence = _TAB
    if sentence == _INDENTATION and text[: mark.index].rpartition("\n")[2].strip():
        sentence = _MISPLACED
    message = sentence.format(found=_found(text, mark), line=began.line + 1, column=began.column + 1)
    return Problem(source, f"not valid YAML: {message}", line=mark.line + 1, column=mark.column + 1)


def _found(text: str, mark: yaml.Mark) -> str:
    character = text[mark.index : mark.index + 1]
    words = {"": "the end of the file", "\t": "a tab", "\n": "the end of the line", "\r": "the end of the line"}
    return words.get(character, repr(character))
