"""The voices of macOS as `say -v '?'` lists them: read, found again by a name, and told to whoever asks for another.

The list changes while the system runs, as voices are downloaded, and it holds names twice: `say` takes a name and
speaks with the first of them, so the second cannot be asked for.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from localapi.worker.protocol import Voice

NEAR = 5

_SPOKEN_AS = {"zh": "zh-CN", "cmn": "zh-CN", "yue": "zh-HK", "iw": "he-IL", "no": "nb-NO", "nb": "nb-NO", "he": "he-IL"}
"""Languages by the region that Apple's voices have, or most readers."""
_NOVELTIES = frozenset({
    "Albert", "Bad News", "Bahh", "Bells", "Boing", "Bubbles", "Cellos", "Good News", "Jester", "Junior", "Organ",
    "Ralph", "Superstar", "Trinoids", "Whisper", "Wobble", "Zarvox", "Eddy", "Flo", "Grandma", "Grandpa", "Reed",
    "Rocko", "Sandy", "Shelley",
})  # fmt: skip
"""Voices for fun, and older ones, that nobody gets who has not asked for them."""

_LINE = re.compile(r"^(.+?)\s+([a-z]{2,3}(?:[-_][\w@=.-]+)?)\s+#")
"""A name, which may have spaces and brackets, and a locale. Long names have one space before it: no columns."""


def parse(listing: str) -> list[Voice]:
    """The voices of a list, each name once. Lines that are none are left out."""
    voices: dict[str, Voice] = {}
    for line in listing.split("\n"):
        if match := _LINE.match(line):
            voices.setdefault(_folded(match[1]), Voice(id=match[1], language=_tag(match[2])))
    return list(voices.values())


def find(voices: Sequence[Voice], name: str) -> Voice | None:
    """The voice of that name; capitals and how an accent is encoded do not count, as they do not for `say`."""
    return next((voice for voice in voices if _folded(voice.id) == _folded(name)), None)


def for_language(voices: Sequence[Voice], language: str) -> Voice | None:
    """The voice that suits a language best: of its region, if there is one; the better recordings first."""
    tag = _folded(_SPOKEN_AS.get(language.lower(), language).replace("_", "-"))
    of_language = [each for each in voices if _folded(each.language).partition("-")[0] == tag.partition("-")[0]]
    serious = [each for each in of_language if each.id.partition(" (")[0] not in _NOVELTIES]
    return min(serious or of_language, key=lambda voice: _rank(voice, tag), default=None)


def _rank(voice: Voice, tag: str) -> tuple[bool, int]:
    better = ("(Premium)" in voice.id, "(Enhanced)" in voice.id, True)
    return _folded(voice.language) != tag, better.index(True)


def near(voices: Sequence[Voice], name: str) -> list[str]:
    """The names that could have been meant: "Eddy" is none where there is "Eddy (English (UK))"."""
    ids = {_folded(voice.id): voice.id for voice in voices}
    wanted = _folded(name)
    begun = [known for known in ids if wanted and known.startswith(wanted)]
    close = difflib.get_close_matches(wanted, ids, n=NEAR)
    return [ids[known] for known in dict.fromkeys([*begun, *close])][:NEAR]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _tag(locale: str) -> str:
    """BCP 47: "en-US" from "en_US", "zh-CN" from "zh_CN_U_SD@sd=cnln"."""
    return re.sub(r"(?i)-u-.*", "", locale.partition("@")[0].replace("_", "-"))
