"""Turn Markdown and HTML into what a person would read aloud. `markdown` has the parser.

Code blocks, emoji, footnote marks, rules, link targets and tag names are left out, as Open WebUI does before it asks
for speech. A URL is read as its host, a table as its cells with commas. Prose without markup is unchanged, except for
white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from localapi.text.clean import clean

if TYPE_CHECKING:
    from markdown_it.token import Token

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
    from localapi.text.markdown import parsed  # noqa: PLC0415  # 60 ms and 6 MB, for requests that want it

    said = _ADDRESS.sub(_host, clean("".join(_blocks(parsed(clean(text))))))
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
    """Return the text to insert for an emoji that is left out."""
    before = emoji.string[emoji.start() - 1 : emoji.start()]
    after = emoji.string[emoji.end() : emoji.end() + 1]
    return "" if before in ("", "\n") or not after or after in _CLOSING else " "
