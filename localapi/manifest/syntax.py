"""Explain YAML syntax errors in plain words: what is wrong at a place, and how to fix it.

libyaml and PyYAML's own parser word the same error differently; the first pattern found in the text applies.
"""

from __future__ import annotations

import yaml

from localapi.errors import Problem

_INDENTATION = (
    "the indentation does not match the lines above; start in the same column as its neighbours, indented with spaces"
)
_TAB = "found a tab; indent YAML with spaces only"
_MISPLACED = "found {found} after the end of the value; put text with quotes or brackets in quotes"
_REFERENCE = "inside braces and brackets, ${{env.NAME}} needs quotes; or put the value on its own line"
_UNCLOSED_LIST = "the list that begins at line {line}, column {column} is not closed before this: add a ',' or its ']'"
_UNCLOSED_MAPPING = _UNCLOSED_LIST.replace("list", "mapping").replace("']'", "'}}'")

_AT_START = {
    "could not find expected ':'": "a key with no ':' after it; write `key: value`",
    "unexpected end of stream": "this quote is never closed; add the closing quote",
    "unexpected document separator": "this quote is not closed before the line ---; add the closing quote",
}
"""Errors to report at the start of the construct instead of where the parser gave up."""

_AT_PLACE = {
    "values are not allowed": (
        "unexpected ':'; check the indentation of this line and the one before, put a space after the ':' of each key, "
        "and put text that contains ': ' in quotes"
    ),
    "sequence entries are not allowed": "a list cannot begin here; put each `- item` on its own line",
    "found a tab character": _TAB,
    "cannot start any token": "a value cannot begin with {found}; put the text in quotes",
    "',' or ']'": _UNCLOSED_LIST,
    "',' or '}'": _UNCLOSED_MAPPING,
    "node content": "expected a value, but found {found}",
    "unknown escape character": "this is not a valid escape in double quotes; use single quotes for a backslash",
    "escape code": "this escape is not a character; use single quotes for a plain backslash",
    "expected hexadecimal": "this escape is not a character; use single quotes for a plain backslash",
    "alphabetic or numeric character": "* and & begin an alias or anchor, but no name follows; put the text in quotes",
    "expected key": _INDENTATION,
    "'-' indicator": _INDENTATION,
    "<block end>": _INDENTATION,
    "document start": "found text after the end of the document; remove it",
    "directive": "lines that begin with % are directives, which are not needed in a manifest; remove this line",
    "incompatible YAML document": "the version in the %YAML line is not supported; remove the line",
    "tag": "tags (words that begin with !) are not supported; put the text in quotes or remove the tag",
    "comment or line break": "block text starts on the line after | or >; end this line here",
    "chomping or indentation": "block text starts on the line after | or >; end this line here",
}


def explain(error: yaml.YAMLError, source: str, text: str) -> Problem:
    """Return the problem for a parser's error."""
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
    character = text[mark.index : mark.index + 1]
    if character == "{" and text[: mark.index].endswith("$"):
        sentence = _REFERENCE
    found = {"": "the end of the file", "\t": "a tab", "\n": "the end of the line", "\r": "the end of the line"}
    message = sentence.format(found=found.get(character, repr(character)), line=began.line + 1, column=began.column + 1)
    return Problem(source, f"not valid YAML: {message}", line=mark.line + 1, column=mark.column + 1)
