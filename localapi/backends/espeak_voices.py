"""List the voices of eSpeak NG from its data, without loading the library.

A voice is a file below `lang`. Its first lines contain its name and its languages with priorities
(https://github.com/espeak-ng/espeak-ng/blob/1.52.0/docs/voices.md). A variant is a file in `voices/!v`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from localapi.worker.protocol import Voice

PACKAGE = "espeakng_loader"
_USUAL_PRIORITY = 5
_SPOKEN_AS = {"zh-hk": "yue", "zh-mo": "yue", "iw": "he", "no": "nb"}
"""Language tags that eSpeak NG names differently."""
_REGION, _SCRIPT = 2, 4
"""Number of letters in these parts of a language tag."""


@dataclass(frozen=True)
class EspeakVoice:
    """A voice without a variant."""

    id: str
    name: str
    file: str
    """Path below `lang`, by which the library finds the voice; it does not know all ids."""
    languages: dict[str, int]
    """Languages with priorities; the lowest is preferred."""


@dataclass(frozen=True)
class EspeakVoices:
    """All voices and variants."""

    by_id: dict[str, EspeakVoice]
    variants: list[str]

    def has(self, voice: str) -> bool:
        """Return whether this voice exists, alone or with a variant."""
        base, plus, variant = voice.partition("+")
        return base.lower() in self.by_id and (not plus or self._variant(variant) is not None)

    def _variant(self, name: str) -> str | None:
        """Return a variant as spelled in the data."""
        return next((each for each in self.variants if each.lower() == name.lower()), None)

    def voice(self, voice: str) -> Voice:
        """Return a voice as clients see it."""
        base, plus, variant = voice.partition("+")
        found = self.by_id[base.lower()]
        variant = self._variant(variant) or variant
        return Voice(found.id + plus + variant, f"{found.name}{plus and ' + '}{variant}", _tag(found.id))

    def for_language(self, language: str) -> str | None:
        """Return the best voice for a language: for pt-PT, one of that region, otherwise one of pt."""
        tag = language.lower().replace("_", "-")
        for wanted in (_SPOKEN_AS.get(tag, tag), tag.partition("-")[0]):
            suited = [(each.languages[wanted], each.id) for each in self.by_id.values() if wanted in each.languages]
            if suited:
                return min(suited)[1]
        return None


@cache
def found() -> EspeakVoices | None:
    """Return the voices of the installed package, or None if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    data = Path(spec.origin).parent / "espeak-ng-data"
    by_id: dict[str, EspeakVoice] = {}
    for path in sorted(path for path in (data / "lang").rglob("*") if path.is_file()):
        voice = _read(path, data, by_id)
        if voice is not None:
            by_id[voice.id] = voice
    variants = sorted(path.name for path in (data / "voices" / "!v").glob("*"))
    return EspeakVoices(dict(sorted(by_id.items())), variants)


def _read(path: Path, data: Path, taken: dict[str, EspeakVoice]) -> EspeakVoice | None:
    """Read a voice. Return None if it has no dictionary: the library would spell texts in another language."""
    name, dictionary = path.name, ""
    languages: dict[str, int] = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        match line.partition("//")[0].split():
            case ["name", *words] if words:
                name = " ".join(words)
            case ["language", language, *priority]:
                number = int(priority[0]) if priority and priority[0].isdecimal() else _USUAL_PRIORITY
                languages.setdefault(language.lower(), number)
            case ["dictionary", dictionary]:
                pass
    if not languages:
        return None
    first = next(iter(languages))
    if not (data / f"{dictionary or first.partition('-')[0]}_dict").is_file():
        return None
    voice = first if first not in taken else path.name.lower()
    return EspeakVoice(voice, name, path.relative_to(data / "lang").as_posix(), languages)


def _tag(voice: str) -> str:
    """Return the id of a voice in the usual form of BCP 47 tags: en-GB, cmn-Latn-pinyin."""
    first, *parts = voice.partition("+")[0].split("-")
    private = parts.index("x") if "x" in parts else len(parts)
    written = [
        part.upper() if len(part) == _REGION and at < private else part.title() if len(part) == _SCRIPT else part
        for at, part in enumerate(parts)
    ]
    return "-".join([first, *written])
