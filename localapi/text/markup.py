"""Read speech markup: SSML (https://www.w3.org/TR/speech-synthesis11/), and tags such as `[pause:1s]`.

Pauses, rates, voices, languages, aliases and spelling out are supported; other markup is removed and reported. Nothing
is fetched and no entity is defined. Text that only resembles markup is kept: prose with "<" or "&" is not SSML. The
text is read in one pass in linear time, even if the markup is malformed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

LONGEST_PAUSE_SECONDS: Final = 10.0
MOST_PAUSE_SECONDS: Final = 300.0
"""Maximum of all pauses of a text together."""
MIN_RATE, MAX_RATE = 0.25, 4.0
MOST_NAMED: Final = 20
"""Maximum names of ignored markup."""
_MOST_MARKS: Final = 60_000
_FIRST_MARK: Final = 0xF0000
"""First of the private-use characters that represent marks in the text, so that cleaning keeps their place."""
_DEEPEST: Final = 200

_MARKS: Final = re.compile("[\U000f0000-\U000ffffd]")
_ATTRIBUTE: Final = r"""[\w:.-]{1,60}\s*=\s*(?:"[^"<]{0,2000}"|'[^'<]{0,2000}'|[\w.%+-]{1,60})"""
_TAG: Final = re.compile(rf"<(/?)([A-Za-z][\w:.-]{{0,60}})((?:\s+{_ATTRIBUTE})*+)\s*+(/?)>")
_BROKEN_TAG: Final = re.compile(r"</?([A-Za-z][\w:.-]{0,60})(?:\s[^<>]{0,500})?>")
_PAIR: Final = re.compile(r"""([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([\w.%+-]+))""")
_ROOT: Final = re.compile(r"<speak(?:\s[^<>]{0,2000})?>", re.IGNORECASE)
_ROOT_END: Final = re.compile(r"</speak\s*>\s*(?:```\s*)?\Z", re.IGNORECASE)
_FENCE: Final = re.compile(r"```\w*")
_BRACKET: Final = re.compile(
    r"\[\s{0,3}(?:(?P<close>/)\s{0,3})?(?P<name>[A-Za-z]{4,8})"
    r"(?:\s{0,3}[:=]\s{0,3}(?P<value>[^\[\]\n:=]{1,60}?)|\s{1,3}(?P<bare>\d[\d.]{0,8}\s?[a-z]{0,12}))?\s{0,3}\](?![(\[])",
    re.IGNORECASE,
)
_LONE_PAUSE: Final = {"[pause]": 0.6, "[short pause]": 0.3, "[long pause]": 1.2}
_NEXT: Final = re.compile(r"[<\[]")
_SPACES: Final = re.compile(r"\s+")
_ENTITY: Final = re.compile(r"&[A-Za-z#][\w.-]{0,60};")
_TIME: Final = re.compile(
    r"\+?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(ms|msecs?|milliseconds?|s|secs?|seconds?)?", re.IGNORECASE
)
_PERCENT: Final = re.compile(r"([+-]?)(\d{1,6}(?:\.\d{0,6})?)\s*(%?)")

_NO_PHONEMES: Final = re.compile(r"[\[\]\s]+")
_STRENGTHS: Final = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.75, "x-strong": 1.25}
_RATES: Final = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.3, "x-fast": 1.7}
_PAUSES: Final = frozenset({"pause", "break", "silence", "wait"})
_OF_SSML: Final = frozenset({"break", "prosody", "say-as", "phoneme", "emphasis", "voice", "lang"})
"""Elements that neither prose nor HTML uses. Outside <speak>, only these and <sub alias> count."""
_POINTS: Final = frozenset({"mark", "bookmark", "audio"})
"""Elements that are empty in SSML. Outside <speak>, they count if they close themselves and have attributes."""
_EXTENSIONS: Final = ("mstts:", "amazon:", "google:")
_SILENT: Final = frozenset({"metadata", "meta", "desc", "lexicon", "title"})
"""Elements whose content is not spoken."""
_SENTENCES: Final = frozenset({"p", "s", "paragraph", "sentence"})
_PLAIN: Final = frozenset({"speak", "w", "token", "lang"})
"""Elements without effect, except for their language."""
_MOST_FACTOR: Final = 10
"""Largest rate without a per cent sign. A larger number means something else, such as words per minute."""
_SPELLED: Final = frozenset({"characters", "character", "spell-out", "spell", "verbatim", "letters"})
_DIGITS: Final = frozenset({"digits", "digit", "telephone", "phone"})


@dataclass(frozen=True)
class Manner:
    """Manner of speaking a part of the text, according to markup."""

    voice: str | None = None
    """Name of a voice, as in requests."""
    rate: float = 1.0
    """Factor on the speed."""
    language: str | None = None
    """A BCP 47 tag."""


@dataclass(frozen=True)
class Mark:
    """Change that applies from its place in the text on."""

    manner: Manner
    pause_seconds: float | None = None
    is_literal: bool = False
    """True if the lexicon does not apply to the text."""


@dataclass(frozen=True)
class Marked:
    """Text without its markup; `parts` finds the marks again after cleaning."""

    text: str
    marks: list[Mark] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Names of ignored markup, such as "emphasis" or "prosody[pitch]"."""

    def parts(self, said: str) -> list[tuple[Mark, str]]:
        """Return the text between the marks, each part with the mark before it."""
        parts: list[tuple[Mark, str]] = []
        mark, at = Mark(Manner()), 0
        for found in _MARKS.finditer(said):
            parts.append((mark, said[at : found.start()]))
            mark, at = self.marks[ord(found[0]) - _FIRST_MARK], found.end()
        return [*parts, (mark, said[at:])]


def read_markup(text: str, *, phonemes: tuple[str, str] | None = None) -> Marked:
    """Return a text without its markup, and the marks that stand for it.

    With `phonemes`, keep IPA phonemes, between these two characters, instead of the text that they belong to.
    """
    text = _MARKS.sub("", text)
    if _NEXT.search(text) is None:
        return Marked(text)
    return _Reader(text, phonemes=phonemes).read()


@dataclass
class _Open:
    """Open element."""

    name: str
    manner: Manner
    """Manner before the element."""
    says: str = ""
    """Part of its text that is spoken: "" for all, "characters", "digits" or "nothing"."""


class _Reader:
    """Reader of one text, from beginning to end."""

    def __init__(self, text: str, *, phonemes: tuple[str, str] | None) -> None:
        start, end = _body(text)
        self._phonemes = phonemes
        self._is_document = start is not None
        self._text = text[start or 0 : end]
        self._last_end: dict[str, int] = {}
        """Position of the last end tag, by the name of the element."""
        self._manner = Manner()
        self._open: list[_Open] = []
        self._said: list[str] = []
        self._marks: list[Mark] = []
        self._ignored: dict[str, None] = {}
        self._pause_seconds = 0.0
        self._missing: set[str] = set()
        """Endings that do not occur in the rest of the text."""
        self._is_marked_up = self._is_document

    def read(self) -> Marked:
        at = plain = 0
        while (found := _NEXT.search(self._text, at)) is not None:
            begin = found.start()
            end = self._element_end(begin) if found[0] == "<" else self._bracket_end(begin)
            if end is None:
                at = begin + 1
                continue
            self._say(self._text[plain:begin])
            self._is_marked_up = True
            written = self._text[begin:end]
            if written.startswith("["):
                self._bracket(written)
            elif written.startswith("<![CDATA["):
                self._put(written[9:-3])
            elif not written.startswith(("<!", "<?")):
                tag = _TAG.fullmatch(written)
                if tag is None:
                    broken = _BROKEN_TAG.fullmatch(written)
                    self._ignore(f"{broken[1]}[malformed]" if broken else "malformed")
                elif tag[1]:
                    self._close(tag[2].lower())
                else:
                    self._start(tag[2].lower(), _attributes(tag[3]), is_empty=bool(tag[4]))
            at = plain = end
        self._say(self._text[plain:])
        if not self._is_marked_up:
            return Marked(self._text)
        return Marked("".join(self._said), self._marks, list(self._ignored))

    # What is markup

    def _element_end(self, begin: int) -> int | None:
        """Return the end of the markup that begins here, or None if it is not markup."""
        text = self._text
        if self._is_document:
            for opening, closing in (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")):
                if text.startswith(opening, begin):
                    return self._after(closing, begin + len(opening))
            if text.startswith("<!", begin):
                return self._after(">", begin)
            tag = _TAG.match(text, begin) or _BROKEN_TAG.match(text, begin)
            return None if tag is None else tag.end()
        tag = _TAG.match(text, begin)
        return tag.end() if tag is not None and self._is_of_ssml(tag) else None

    def _is_of_ssml(self, tag: re.Match[str]) -> bool:
        """Return True if a tag outside <speak> is SSML; "the <voice> tag" is prose."""
        name = tag[2].lower()
        if tag[1]:
            return name in _OF_SSML or name.startswith(_EXTENSIONS) or any(each.name == name for each in self._open)
        if name == "sub":
            return "alias" in _attributes(tag[3])
        if name in _POINTS:
            return bool(tag[3] and tag[4])
        if not (name in _OF_SSML or name.startswith(_EXTENSIONS)):
            return False
        if name not in self._last_end:
            self._last_end[name] = self._text.lower().rfind(f"</{name}")
        return bool(tag[3] or tag[4]) or self._last_end[name] > tag.start()

    def _after(self, closing: str, begin: int) -> int | None:
        if closing in self._missing:
            return None
        at = self._text.find(closing, begin)
        if at < 0:
            self._missing.add(closing)
            return None
        return at + len(closing)

    def _bracket_end(self, begin: int) -> int | None:
        for written in _LONE_PAUSE:
            if self._text.startswith(written, begin) and not self._text.startswith("(", begin + len(written)):
                return begin + len(written)
        found = _BRACKET.match(self._text, begin)
        if found is None:
            return None
        name, value = found["name"].lower(), found["value"] or found["bare"]
        if name in _PAUSES:
            return found.end() if not found["close"] and value and _seconds(value) is not None else None
        if found["bare"]:
            return None
        if name in ("rate", "speed"):
            is_tag = bool(found["close"]) or (value is not None and _rate(value) is not None)
        else:
            is_tag = name in ("voice", "pitch", "volume", "emphasis", "style", "emotion") and bool(
                found["close"] or value
            )
        return found.end() if is_tag else None

    # What it says

    def _bracket(self, written: str) -> None:
        if written in _LONE_PAUSE:
            self._pause(_LONE_PAUSE[written])
            return
        found = _BRACKET.fullmatch(written)
        assert found is not None  # noqa: S101  # it was found
        name, value = found["name"].lower(), (found["value"] or found["bare"] or "").strip()
        if name in _PAUSES:
            self._pause(_seconds(value) or 0.0)
        elif found["close"]:
            self._close(f"[{name}")
        elif name in ("rate", "speed"):
            self._close(f"[{name}")
            self._begin(f"[{name}", replace(self._manner, rate=self._manner.rate * (_rate(value) or 1.0)))
        elif name == "voice":
            self._close("[voice")
            self._begin("[voice", replace(self._manner, voice=value))
        else:
            self._ignore(name)

    def _start(self, name: str, attributes: Mapping[str, str], *, is_empty: bool) -> None:
        if name == "break":
            self._break(attributes)
            return
        manner, says = self._manner, ""
        language = attributes.get("xml:lang") or attributes.get("lang") or attributes.get("language")
        if language:
            manner = replace(manner, language=language)
        if name == "prosody":
            rate = _rate(attributes["rate"]) if "rate" in attributes else 1.0
            if rate is None:
                self._ignore("prosody[rate]")
            for other in sorted(attributes.keys() - {"rate"}):
                self._ignore(f"prosody[{other}]")
            manner = replace(manner, rate=manner.rate * (rate or 1.0))
        elif name == "voice":
            for other in sorted(attributes.keys() - {"name", "xml:lang", "lang", "language"}):
                self._ignore(f"voice[{other}]")
            manner = replace(manner, voice=attributes.get("name") or manner.voice)
        elif name in _SENTENCES:
            self._put("\n")
        else:
            says = self._how_to_say(name, attributes)
        if not is_empty:
            self._begin(name, manner, says)

    def _how_to_say(self, name: str, attributes: Mapping[str, str]) -> str:
        """Return which part of an element is spoken (see `_Open.says`), and insert its replacement if there is one."""
        if name == "sub" and "alias" in attributes:
            self._put(attributes["alias"], literal=True)
            return "nothing"
        if name == "say-as":
            kind = attributes.get("interpret-as", "").lower()
            if kind in _SPELLED:
                return "characters"
            if kind in _DIGITS:
                return "digits"
            self._ignore(f"say-as[{kind}]")
            return ""
        if name == "phoneme" and self._phonemes is not None:
            said = _NO_PHONEMES.sub("", html.unescape(attributes.get("ph", ""))).strip()
            if said and attributes.get("alphabet", "ipa").lower() == "ipa":
                self._put(said.join(self._phonemes), literal=True)
                return "nothing"
        if name not in _PLAIN:
            self._ignore(name)
        return "nothing" if name in _SILENT else ""

    def _break(self, attributes: Mapping[str, str]) -> None:
        seconds = _seconds(attributes["time"]) if "time" in attributes else None
        if seconds is None:
            if "time" in attributes:
                self._ignore("break[time]")
            strength = attributes.get("strength", "medium").strip().lower()
            if strength not in _STRENGTHS:
                self._ignore("break[strength]")
            seconds = _STRENGTHS.get(strength, _STRENGTHS["medium"])
        self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        left = MOST_PAUSE_SECONDS - self._pause_seconds
        allowed = min(seconds, LONGEST_PAUSE_SECONDS, left)
        if allowed < seconds:
            self._ignore(f"break[time over {LONGEST_PAUSE_SECONDS:g}s]")
        self._pause_seconds += allowed
        self._mark(pause_seconds=allowed)

    def _begin(self, name: str, manner: Manner, says: str = "") -> None:
        if len(self._open) >= _DEEPEST:
            self._ignore(f"{name}[nested]")
            return
        self._open.append(_Open(name, self._manner, says))
        self._turn(manner)

    def _close(self, name: str) -> None:
        """Close the innermost element of that name, and all elements inside it."""
        if name in _SENTENCES:
            self._put("\n")
        index = next((at for at in range(len(self._open) - 1, -1, -1) if self._open[at].name == name), None)
        if index is not None:
            self._turn(self._open[index].manner)
            del self._open[index:]

    def _turn(self, manner: Manner) -> None:
        if manner != self._manner:
            self._manner = manner
            self._mark()

    # The text

    def _say(self, written: str) -> None:
        """Add the text between two tags."""
        if not written:
            return
        if self._is_document:
            written = html.unescape(written)
            for entity in _ENTITY.findall(written):
                self._ignore(entity)
            written = _SPACES.sub(" ", _ENTITY.sub(" ", written))  # a line break is a space in XML
        self._put(written)

    def _put(self, text: str, *, literal: bool = False) -> None:
        kinds = {each.says for each in self._open}
        if "nothing" in kinds:
            return
        if "characters" in kinds or "digits" in kinds:
            self._mark(literal=True)
            self._said.append(spelled(text) if "characters" in kinds else re.sub(r"(?<=\d)(?=\d)", " ", text))
            self._mark()
        elif literal:
            self._mark(literal=True)
            self._said.append(html.unescape(text))
            self._mark()
        else:
            self._said.append(text)

    def _mark(self, *, pause_seconds: float | None = None, literal: bool = False) -> None:
        if len(self._marks) == _MOST_MARKS:
            self._ignore("more than can be told")
            return
        self._said.append(chr(_FIRST_MARK + len(self._marks)))
        self._marks.append(Mark(self._manner, pause_seconds, literal))

    def _ignore(self, name: str) -> None:
        if len(self._ignored) < MOST_NAMED:
            self._ignored[name[:60]] = None


def spelled(text: str) -> str:
    """Return the text spelled out: "W3C" as "W, 3, C". Commas are needed, because "A B" is read as "a bee"."""
    signs = [sign.upper() if len(sign.upper()) == 1 else sign for sign in text if not sign.isspace()]
    said = ""
    for before, sign in zip(["", *signs], signs, strict=False):
        said += f"{'' if not before else ' ' if before.isdigit() and sign.isdigit() else ', '}{sign}"
    return said


def _attributes(written: str) -> dict[str, str]:
    return {
        found[1].lower(): html.unescape(found[2] or found[3] or found[4] or "") for found in _PAIR.finditer(written)
    }


def _body(text: str) -> tuple[int | None, int]:
    """Return the start and the end of an SSML document in a text; None if there is none.

    Only what XML allows, or a code fence of a chat model, may precede it, unless it ends the text.
    """
    root = _ROOT.search(text)
    if root is None:
        return None, len(text)
    before = text[: root.start()].strip("\ufeff \t\r\n")
    ends = _ROOT_END.search(text, max(root.end(), len(text) - 100))
    end = len(text) if ends is None else text.lower().rindex("</speak")
    if not before or (before.startswith(("<?", "<!")) and before.endswith(">")) or _FENCE.fullmatch(before):
        return root.start(), end
    return (0, end) if ends is not None else (None, len(text))


def _seconds(written: str) -> float | None:
    """Return seconds for "1s", "500ms" or a number, which means seconds if it is small, otherwise milliseconds."""
    found = _TIME.fullmatch(written.strip())
    if found is None:
        return None
    number, unit = float(found[1]), (found[2] or "").lower()
    is_milli = unit.startswith("m") if unit else number > 2 * LONGEST_PAUSE_SECONDS
    return number / 1000 if is_milli else number


def _rate(written: str) -> float | None:
    """Return the factor for "slow", "80%", "+20%" or 1.2; None for anything else."""
    written = written.strip().lower()
    if written in _RATES:
        return _RATES[written]
    found = _PERCENT.fullmatch(written)
    if found is None or (not found[3] and float(found[2]) > _MOST_FACTOR):
        return None
    number = float(found[2]) / (100 if found[3] else 1)
    rate = number if not found[1] else 1 + number if found[1] == "+" else 1 - number
    return min(max(rate, MIN_RATE), MAX_RATE)
