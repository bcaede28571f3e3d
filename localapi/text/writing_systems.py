"""Scripts of texts, and the languages that use them. This module knows no voices.

Python has no table of scripts, but the names of letters begin with their script (https://unicode.org/reports/tr24/).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_WIDE_SIGN = 3
"""Weight of a Chinese or Japanese character and of a Korean syllable."""
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U000323af]")


def weight(text: str) -> int:
    """Return the number of letters; wide characters count as several."""
    return len(text) if text.isascii() else len(text) + (_WIDE_SIGN - 1) * sum(1 for _ in _WIDE.finditer(text))


def is_wide(char: str) -> bool:
    """Return True if a character belongs to a script without spaces between words."""
    return _WIDE.match(char) is not None


def reach(text: str, start: int, end: int, most: int) -> int:
    """Return the end of a span from `start` with at most this weight, but at least one character; at most `end`."""
    at = start
    while at < end:
        most -= _WIDE_SIGN if is_wide(text[at]) else 1
        if most < 0:
            break
        at += 1
    return max(at, min(start + 1, end))


LATIN, HAN, KANA = "Latin", "Han", "Kana"
_BY_NAME: Final = {
    "LATIN": LATIN, "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARABIC": "Arabic", "HEBREW": "Hebrew", "CJK": HAN,
    "IDEOGRAPHIC": HAN, "BOPOMOFO": HAN, "HIRAGANA": KANA, "KATAKANA": KANA, "HANGUL": "Hangul",
    "DEVANAGARI": "Devanagari", "BENGALI": "Bengali", "GURMUKHI": "Gurmukhi", "GUJARATI": "Gujarati",
    "ORIYA": "Odia", "TAMIL": "Tamil", "TELUGU": "Telugu", "KANNADA": "Kannada", "MALAYALAM": "Malayalam",
    "SINHALA": "Sinhala", "THAI": "Thai", "LAO": "Lao", "MYANMAR": "Myanmar", "KHMER": "Khmer",
    "GEORGIAN": "Georgian", "ARMENIAN": "Armenian", "ETHIOPIC": "Ethiopic", "TIBETAN": "Tibetan", "THAANA": "Thaana",
    "MONGOLIAN": "Mongolian", "CHEROKEE": "Cherokee",
}  # fmt: skip
"""Scripts by the first word of a letter's name."""
_LANGUAGES: Final = {
    "Cyrillic": ("ru", "uk", "be", "bg", "mk", "sr", "kk", "ky", "tt", "ba", "cv", "mn", "nog", "tg"),
    "Greek": ("el", "grc"), "Arabic": ("ar", "fa", "ur", "sd", "ug", "ps"), "Hebrew": ("he", "iw", "yi"),
    HAN: ("zh", "cmn", "yue", "hak", "ja", "wuu", "nan"), KANA: ("ja",), "Hangul": ("ko",),
    "Devanagari": ("hi", "mr", "ne", "kok"), "Bengali": ("bn", "as", "bpy"), "Gurmukhi": ("pa",), "Gujarati": ("gu",),
    "Odia": ("or",), "Tamil": ("ta",), "Telugu": ("te",), "Kannada": ("kn",), "Malayalam": ("ml",),
    "Sinhala": ("si",), "Thai": ("th",), "Lao": ("lo",), "Myanmar": ("my", "shn"), "Khmer": ("km",),
    "Georgian": ("ka",), "Armenian": ("hy", "hyw"), "Ethiopic": ("am", "ti"), "Tibetan": ("bo",), "Thaana": ("dv",),
    "Mongolian": ("mn",), "Cherokee": ("chr",),
}  # fmt: skip
"""Languages of each script, the one with most readers first."""
_TELLING: Final = {
    "Cyrillic": (("be", "ўЎ"), ("kk", "қҚғҒәӘңҢұҰ"), ("mk", "ѓЃќЌѕЅ"),
        ("sr", "ђЂћЋџЏљЉњЊ"), ("uk", "їЇєЄґҐіІ")),
    "Arabic": (("ur", "ٹڈڑںے"), ("fa", "پچژگکی")),
}  # fmt: skip
"""Letters that occur in only one of a script's languages."""
_WHOLE_WORDS: Final = frozenset({HAN, KANA, "Hangul"})
"""Scripts in which one character can be a word. In other scripts, any voice can name a single letter, such as alpha."""
_WIDE_WEIGHT: Final = 3


@dataclass(frozen=True)
class Run:
    """Part of a text in one script. Characters without a script belong to the letters before them."""

    script: str
    """Script of the part; "" if the text has no letters."""
    text: str


@lru_cache(maxsize=4096)
def script_of_letter(char: str) -> str:
    """Return the script of a letter; "" for a character without one, or of an unknown one."""
    if char.isascii():
        return LATIN if char.isalpha() else ""
    if not char.isalpha():
        return ""
    first, *more = unicodedata.name(char, "").replace("-", " ").split() or [""]
    if first in ("FULLWIDTH", "HALFWIDTH") and more:
        first = more[0]
    return _BY_NAME.get(first, "")


def scripts_of_language(tag: str) -> frozenset[str]:
    """Return the scripts that readers of this language know, including Latin: every text may have such words."""
    first, *more = tag.lower().replace("_", "-").split("-")
    if "latn" in more:
        return frozenset({LATIN})
    return frozenset({LATIN, *(script for script, languages in _LANGUAGES.items() if first in languages)})


def language_of(text: str, script: str, hint: str | None) -> str | None:
    """Return the language of a text in this script; `hint` is preferred if possible."""
    if hint is not None and script in scripts_of_language(hint) and script != LATIN:
        return hint
    for language, letters in _TELLING.get(script, ()):
        if any(letter in text for letter in letters):
            return language
    return next(iter(_LANGUAGES.get(script, ())), None)


def runs(text: str) -> list[Run]:
    """Split a text into parts of one script each. If there is kana, Chinese characters are Japanese."""
    if text.isascii():
        return [Run(LATIN if any(map(str.isalpha, text)) else "", text)]
    scripts = _settled([script_of_letter(char) for char in text])
    found: list[Run] = []
    script, start = next(filter(None, scripts), ""), 0
    for at, own in enumerate(scripts):
        if own and own != script:
            found.append(Run(script, text[start:at]))
            script, start = own, at
    return [*found, Run(script, text[start:])]


def main_script(parts: Sequence[Run]) -> str:
    """Return the script that takes longest to say."""
    weights: Counter[str] = Counter()
    for part in parts:
        weights[part.script] += len(part.text) * (_WIDE_WEIGHT if part.script in _WHOLE_WORDS else 1)
    return max(weights, key=weights.__getitem__, default="")


def _settled(scripts: list[str]) -> list[str]:
    """Return the scripts of characters without lone letters, and with a single script for Japanese."""
    if KANA in scripts:
        scripts = [KANA if script == HAN else script for script in scripts]
    counts = Counter(filter(None, scripts))
    usual = max(counts, key=counts.__getitem__, default="")
    for at, script in enumerate(scripts):
        if script in ("", usual, LATIN) or script in _WHOLE_WORDS:
            continue
        neighbours = (scripts[at - 1] if at else "", scripts[at + 1] if at + 1 < len(scripts) else "")
        if script not in neighbours:
            scripts[at] = ""
    return scripts
