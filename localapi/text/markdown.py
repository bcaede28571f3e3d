"""Parse CommonMark as people and models write it, without taking prose for markup.

The parser is markdown-it-py, as it takes linear time on hostile input and is installed anyway (rich needs it).
Importing this module costs some 60 ms and 6 MB, so `speakable` imports it when it is first called.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.reference import reference
from markdown_it.rules_inline import StateInline, emphasis
from markdown_it.token import Token

_TARGET = re.compile(r"[a-z][a-z0-9+.-]*:|[#?/]|.*[./]", re.IGNORECASE)
"""Target of a link. `f[i](x)` is not a link."""
_DEFINITION = re.compile(r" {0,3}\[[^\]]+\]:\s*<?(?:[a-z][a-z0-9+.-]*://|mailto:|www\.|[#/])", re.IGNORECASE)
"""Definition of a link. `[Alice]: Hello.` is not one."""
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]{1,60}\]:?")
_CJK = re.compile(
    "[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U000323af]"
)


class _Markdown(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802  # markdown-it's name
        return _TARGET.match(url) is not None

    def normalizeLink(self, url: str) -> str:  # noqa: N802
        return url


def parsed(text: str) -> Sequence[Token]:
    return _parser().parse(text)


@functools.cache
def _parser() -> MarkdownIt:
    """Return a parser without indented code and HTML blocks, which would hide prose."""
    parser = _Markdown("commonmark").enable(["table", "strikethrough"]).disable(["code", "html_block"])
    parser.block.ruler.at("reference", _reference)
    parser.inline.ruler.at("emphasis", _emphasis)
    parser.inline.ruler.before("link", "footnote", _footnote)
    return parser


def _reference(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    begin = state.bMarks[start_line] + state.tShift[start_line]
    return _DEFINITION.match(state.src, begin) is not None and reference(state, start_line, end_line, silent)


def _footnote(state: StateInline, silent: bool) -> bool:
    """Drop `[^1]`, in the text and before the note."""
    found = _FOOTNOTE.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    state.pos = found.end()
    return True


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Parse emphasis with two changes to CommonMark.

    A star between two letters or digits opens nothing: `5*3*2` is a product. A star beside a Chinese, Japanese or
    Korean character may close regardless of punctuation: models write `**重点。**内容`, which CommonMark does not close
    (https://github.com/commonmark/commonmark-spec/issues/650).
    """
    start, known = state.pos, len(state.delimiters)
    if not emphasis.tokenize(state, silent):
        return False
    if state.src[start] == "*":
        before = state.src[start - 1] if start else " "
        after = state.src[state.pos] if state.pos < state.posMax else " "
        wide = _CJK.match(before) or _CJK.match(after)
        for delimiter in state.delimiters[known:]:
            if wide:
                delimiter.open, delimiter.close = not after.isspace(), not before.isspace()
            elif before.isalnum() and after.isalnum():
                delimiter.open = False
    return True
