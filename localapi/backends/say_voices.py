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
