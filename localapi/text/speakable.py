"""Turn CommonMark, as people and models write it, and HTML into what a person would read aloud.

Code blocks, emoji, footnote marks, rules, link targets and tag names are omitted, as Open WebUI does before it requests
speech. A URL is read as its host, a table as its cells with commas. Prose without markup is unchanged, except for white
space.

The parser is markdown-it-py, because it takes linear time on hostile input and is installed anyway (rich needs it).
Importing this module costs some 60 ms and 6 MB, so `script` imports it only when a text may contain Markdown.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.reference import reference
from markdown_it.rules_inline import StateInline, emphasis
from markdown_it.token import Token

from localapi.text.clean import clean

_ADDRESS = re.compile(
    r"(?<![0-9A-Za-z])(?:(?:https?|ftp)://(?:[\w.~!$&'*+,;=:%-]{1,80}@)?(?:www\.)?|www\.)"
    r"(?P<host>[0-9A-Za-z\u00a1-\u1fff][0-9A-Za-z\u00a1-\u1fff.-]*)(?::[0-9]{1,5})?(?:[/?#][!#-;=?-~]*)?",
    re.IGNORECASE,
)
_AFTER_ADDRESS = ".,;:!?'*_~|]}"

_PICTURE = (
    "\U0001f000-\U0001f0ff\U0001f170-\U0001faff\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe"
    "\u2600-\u266c\u2670-\u2775\u2794-\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55"
)
"""Emoji and similar symbols (https://unicode.org/Public/UCD/latest/ucd/emoji/emoji-data.txt), but not ♭ or ❶."""
_EMOJI = re.compile(rf"(?<![ \t])[ \t]*(?:(?:[{_PICTURE}]|[^\w\s#*©®™]\ufe0f)[\ufe0e\ufe0f\u200d]*[ \t]*)+")
_KEYCAP = re.compile("\ufe0f?\u20e3")
_CLOSING = frozenset(".,;:!?)]}\n\u2019\u201d\u2026\u3001\u3002\u300d\u300f\uff01\uff09\uff0c\uff1a\uff1b\uff1f")

_TASK = re.compile(r"\[[ xX]\]\s+")
_TAG = re.compile(r"</?([a-z][a-z0-9]*)(?:\s(.*?))?/?>", re.IGNORECASE | re.DOTALL)
_BREAK = re.compile(
    "address|article|aside|blockquote|body|br|caption|center|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|"
    "footer|form|h[1-6]|head|header|hr|html|legend|li|main|nav|ol|option|p|pre|section|summary|table|tbody|td|tfoot|th|"
    "thead|title|tr|ul"
)
_INLINE = re.compile(
    "a|abbr|audio|b|bdi|bdo|big|button|cite|code|data|del|dfn|em|font|i|img|input|ins|kbd|label|link|mark|meta|meter|"
    "noscript|output|picture|progress|q|rp|rt|ruby|s|samp|script|select|small|source|span|strike|strong|style|sub|sup|"
    "svg|textarea|time|tt|u|var|video|wbr"
)
"""Elements of HTML. `list<T>` is not one."""
_UNSEEN = frozenset({"script", "style"})
_BARE = frozenset({"", "open", "hidden", "controls", "disabled"})
"""Attributes that may have no value. `a <b and c> d` is not a tag."""


def speakable(text: str) -> str:
    """Return the text without its markup."""
    said = _ADDRESS.sub(_host, clean("".join(_blocks(_parser().parse(clean(text))))))
    pictureless = _EMOJI.sub(_gap, _KEYCAP.sub("", said))
    lines = "\n".join(line.strip() for line in pictureless.split("\n"))
    return re.sub("\n{3,}", "\n\n", lines).strip("\n")


def _blocks(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield paragraphs, headings, items and rows, each with the line breaks after it."""
    end = "\n\n"
    item: str | None = None
    cells: list[str] | None = None
    for token in tokens:
        match token.type:
            case "list_item_open":
                item = f"{token.info}{token.markup} " if token.info else ""
            case "paragraph_open" | "heading_open":
                end = "\n" if token.hidden else "\n\n"
            case "bullet_list_close" | "ordered_list_close" | "table_close":
                yield "\n"
            case "tr_open":
                cells = []
            case "tr_close":
                yield ", ".join(filter(None, cells or ())) + "\n"
                cells = None
            case "inline":
                said = _inline(token.children or ())
                if cells is not None:
                    cells.append(said)
                elif item is not None:
                    yield item + _TASK.sub("", said, count=1) + end
                    item = None
                else:
                    yield said + end


def _inline(tokens: Sequence[Token]) -> str:
    said: list[str] = []
    unseen = False
    for token in tokens:
        if token.type == "html_inline":
            tag = _TAG.fullmatch(token.content)
            said.append(_tag(tag, token.content))
            unseen = tag is not None and tag[1].lower() in _UNSEEN and not token.content.startswith("</")
        elif not unseen:
            said.append(_words(token))
    return "".join(said)


def _words(token: Token) -> str:
    match token.type:
        case "softbreak" | "hardbreak":
            return "\n"
        case "image":
            return _inline(token.children or ())
        case _:
            return token.content


def _tag(tag: re.Match[str] | None, written: str) -> str:
    """Return the replacement of a tag: the text itself if it is not a tag, nothing for a comment."""
    if tag is None:
        return "" if written.startswith(("<!", "<?")) else written
    name, attributes = tag[1].lower(), (tag[2] or "").strip()
    if not ("=" in attributes or attributes in _BARE):
        return written
    if _BREAK.fullmatch(name):
        return "\n"
    return "" if _INLINE.fullmatch(name) else written


def _host(address: re.Match[str]) -> str:
    """Return `example.com.` for `https://www.example.com/a?b.`."""
    rest = address[0].rstrip(_AFTER_ADDRESS + ("" if "(" in address[0] else ")"))
    return address["host"].rstrip(".-") + address[0][len(rest) :]


def _gap(emoji: re.Match[str]) -> str:
    """Return the text to insert for an omitted emoji."""
    before = emoji.string[emoji.start() - 1 : emoji.start()]
    after = emoji.string[emoji.end() : emoji.end() + 1]
    return "" if before in ("", "\n") or not after or after in _CLOSING else " "


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
