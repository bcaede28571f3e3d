"""Choose the voice for each part of a text: the named one, otherwise one that can read the part's script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localapi.backends.parameters import MAX_SPEED, MIN_SPEED
from localapi.backends.speech import SpeechOptions
from localapi.text.clean import is_speakable
from localapi.text.script import Script
from localapi.text.writing_systems import HAN, KANA, Run, language_of, main_script, runs
from localapi.worker.protocol import Voice


@dataclass(frozen=True)
class Line:
    """Text that one voice speaks in one call."""

    text: str
    voice: str | None
    """Engine's name of the voice; None for its default."""
    speed: float


@dataclass(frozen=True)
class Cast:
    """A text with its voices."""

    lines: list[Line]
    goes_on: dict[int, str]
    """Numbers of the lines whose sentence continues in the next one, with the white space in between."""
    pauses: dict[int, float]
    """Seconds before lines that replace the usual silence; the one after the last line is at the end."""
    ignored: list[str]
    """Markup that was ignored."""
    unread: list[str]
    """Scripts that the voice cannot read, because it was named, or no better one exists."""

    def text(self, first: int, last: int) -> str:
        """Return the text of the lines from first to last, inclusive."""
        spaced = [self.lines[index].text + self.goes_on.get(index, " ") for index in range(first, last)]
        return "".join([*spaced, self.lines[last].text])


Named = Callable[[str], str | None]
"""Function that finds the engine's voice for a name in the text; raises LookupError if there is none."""


@dataclass(frozen=True)
class Casting:
    """Available voices, and the one that speaks unless the text names another."""

    options: SpeechOptions
    known: Sequence[Voice]
    voice: str | None
    """Engine's name of the voice; None for its default."""
    is_named: bool
    """True if the client chose it."""
    speed: float
    language: str | None
    """Language of the text, set by the client or the manifest."""
    named: Named

    def cast(self, script: Script) -> Cast:
        """Give every segment a voice; split a segment wherever the voice must change."""
        lines: list[Line] = []
        goes_on: dict[int, str] = {}
        pauses: dict[int, float] = {}
        ignored, unread = dict.fromkeys(script.ignored), dict[str, None]()
        for index, (text, manner) in enumerate(zip(script.segments, script.manners, strict=True)):
            if index in script.pauses:
                pauses[len(lines)] = script.pauses[index]
            speed = min(max(self.speed * manner.rate, MIN_SPEED), MAX_SPEED)
            voice, is_named = self.voice, self.is_named
            if manner.voice is not None:
                try:
                    voice, is_named = self.named(manner.voice), True
                except LookupError:
                    ignored[f"voice[{manner.voice}]"] = None
            parts, left = self._parts(text, voice, manner.language or self.language, is_named=is_named)
            unread |= dict.fromkeys(left)
            if manner.language and not is_named and not self._can_speak(manner.language, voice):
                ignored[f"lang[{manner.language}]"] = None
            for number, (part, speaker) in enumerate(parts):
                if number < len(parts) - 1:
                    goes_on[len(lines)] = " " * (part[-1:].isspace() or parts[number + 1][0][:1].isspace())
                lines.append(Line(part.strip(), speaker, speed))
            if index in script.goes_on:
                goes_on[len(lines) - 1] = script.goes_on[index]
        if len(script.segments) in script.pauses:
            pauses[len(lines)] = script.pauses[len(script.segments)]
        return Cast(lines, goes_on, pauses, list(ignored), list(unread))

    def _can_speak(self, language: str, voice: str | None) -> bool:
        own = self.options.language_of(voice, self.known)
        return self.options.chooses_voices or own is None or _first(own) == _first(language)

    def _parts(
        self, text: str, voice: str | None, language: str | None, *, is_named: bool
    ) -> tuple[list[tuple[str, str | None]], list[str]]:
        """Return the parts of a text with their voices, and the scripts that remain unreadable."""
        own = self.options.language_of(voice, self.known)
        if own is None:
            return [(text, voice)], []
        found = runs(text)
        if is_named or not self.options.chooses_voices:
            return [(text, voice)], _unread(text, found, self.options.reads(own))
        voice, own = self._usual(found, text, voice, own, language)
        reads = self.options.reads(own)
        parts: list[tuple[str, str | None]] = []
        for run in found:
            speaker = voice
            if run.script and run.script not in reads:
                speaker = self._for_script(run.text, run.script, language, voice)[0] or voice
            if parts and (parts[-1][1] == speaker or not is_speakable(run.text)):
                parts[-1] = (parts[-1][0] + run.text, parts[-1][1])
            else:
                parts.append((run.text, speaker))
        unread: list[str] = []
        for part, speaker in parts:
            its = self.options.language_of(speaker, self.known)
            unread += _unread(part, runs(part), self.options.reads(its)) if its is not None else []
        return parts, unread

    def _usual(
        self, found: Sequence[Run], text: str, voice: str | None, own: str, language: str | None
    ) -> tuple[str | None, str]:
        """Return the voice for most of the text, and its language: the given voice if it can read the main script."""
        if language is not None and _first(language) != _first(own):
            other = self.options.voice_for(language, voice, self.known)
            if other is not None:
                voice, own = other, language
        main = main_script(found)
        if main and main not in self.options.reads(own):
            other, its = self._for_script(text, main, language, voice)
            if other is not None and its is not None:
                return other, its
        return voice, own

    def _for_script(self, text: str, script: str, hint: str | None, like: str | None) -> tuple[str | None, str | None]:
        """Return a voice that reads the script, and its language; None for each that is not found."""
        language = language_of(text, script, hint)
        voice = None if language is None else self.options.voice_for(language, like, self.known)
        return voice, language


def _unread(text: str, found: Sequence[Run], reads: frozenset[str]) -> list[str]:
    """Return the scripts of the text that the voice cannot read."""
    scripts = [run.script for run in found if run.script]
    if KANA in scripts and HAN not in reads and any("\u4e00" <= char <= "\u9fff" for char in text):
        scripts.append(HAN)
    return [script for script in dict.fromkeys(scripts) if script not in reads]


def _first(tag: str) -> str:
    first = tag.replace("_", "-").partition("-")[0].lower()
    return {"cmn": "zh", "yue": "zh", "no": "nb"}.get(first, first)
