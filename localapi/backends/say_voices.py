"""Parse the voices of macOS as `say -v '?'` lists them, and find one by name or language.

The list changes while the system runs, because voices are downloaded. It may contain a name twice: `say` uses the first
voice of a name, so the second cannot be selected.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from localapi.worker.protocol import Voice

NEAR = 5

_SPOKEN_AS = {"zh": "zh-CN", "cmn": "zh-CN", "yue": "zh-HK", "iw": "he-IL", "no": "nb-NO", "nb": "nb-NO", "he": "he-IL"}
"""Default region of a language: that of Apple's voices, or of most speakers."""
_NOVELTIES = frozenset({
    "Albert", "Bad News", "Bahh", "Bells", "Boing", "Bubbles", "Cellos", "Good News", "Jester", "Junior", "Organ",
    "Ralph", "Superstar", "Trinoids", "Whisper", "Wobble", "Zarvox", "Eddy", "Flo", "Grandma", "Grandpa", "Reed",
    "Rocko", "Sandy", "Shelley",
})  # fmt: skip
"""Novelty voices and older ones, which are used only on request."""

_LINE = re.compile(r"^(.+?)\s+([a-z]{2,3}(?:[-_][\w@=.-]+)?)\s+#")
"""Name, which may contain spaces and brackets, and locale. A long name is followed by a single space instead of aligned
columns."""


def parse(listing: str) -> list[Voice]:
    """Return the voices of a list, each name once. Skip other lines."""
    voices: dict[str, Voice] = {}
    for line in listing.split("\n"):
        if match := _LINE.match(line):
            voices.setdefault(_folded(match[1]), Voice(id=match[1], language=_tag(match[2])))
    return list(voices.values())


def find(voices: Sequence[Voice], name: str) -> Voice | None:
    """Return the voice with a name, ignoring case and Unicode normalization, as `say` does."""
    return next((voice for voice in voices if _folded(voice.id) == _folded(name)), None)


def for_language(voices: Sequence[Voice], language: str) -> Voice | None:
    """Return the best voice for a language, preferring its region and better recordings."""
    tag = _folded(_SPOKEN_AS.get(language.lower(), language).replace("_", "-"))
    of_language = [each for each in voices if _folded(each.language).partition("-")[0] == tag.partition("-")[0]]
    serious = [each for each in of_language if each.id.partition(" (")[0] not in _NOVELTIES]
    return min(serious or of_language, key=lambda voice: _rank(voice, tag), default=None)


def _rank(voice: Voice, tag: str) -> tuple[bool, int]:
    better = ("(Premium)" in voice.id, "(Enhanced)" in voice.id, True)
    return _folded(voice.language) != tag, better.index(True)


def near(voices: Sequence[Voice], name: str) -> list[str]:
    """Return names similar to an unknown one: "Eddy (English (UK))" for "Eddy"."""
    ids = {_folded(voice.id): voice.id for voice in voices}
    wanted = _folded(name)
    begun = [known for known in ids if wanted and known.startswith(wanted)]
    close = difflib.get_close_matches(wanted, ids, n=NEAR)
    return [ids[known] for known in dict.fromkeys([*begun, *close])][:NEAR]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _tag(locale: str) -> str:
    """Return a BCP 47 tag: "en-US" for "en_US", "zh-CN" for "zh_CN_U_SD@sd=cnln"."""
    return re.sub(r"(?i)-u-.*", "", locale.partition("@")[0].replace("_", "-"))
