"""The backend espeak-ng: speech without a model, in a hundred languages."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from localapi.backends import espeak_voices
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.espeak_voices import EspeakVoices
from localapi.backends.options import FolderOf, PathProblem
from localapi.backends.speech import SpeechOptions
from localapi.backends.variables import WithVariables
from localapi.backends.worker_engine import WorkerSetup, start_worker
from localapi.errors import shown
from localapi.text.writing_systems import HAN
from localapi.worker.protocol import Voice

DEFAULT_VOICE = "en-us"


class EspeakNg(WithVariables, SpeechOptions):
    """Options of a voice of eSpeak NG.

    The server changes the tempo for a request's `speed`: at twice the words per minute, the engine's speech takes less
    than half the time, and the error grows for short texts.
    """

    backend: Annotated[
        Literal["espeak-ng"], Field(description="eSpeak NG (included): a hundred languages, no download.")
    ]
    worker_bytes = 40 * 1024 * 1024
    voice: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Default voice: en-us, de, or en-us+f3 with a variant. If unset, the first voice for "
            "`language`, or en-us.",
            examples=["en-gb+f3"],
        ),
    ] = None
    rate_wpm: Annotated[int, Field(ge=80, le=450, description="Words per minute at speed 1.", examples=[150])] = 175
    pitch: Annotated[int, Field(ge=0, le=100, description="Pitch of the voice.", examples=[60])] = 50
    gives_times = True
    chooses_voices = True

    def located(self, folder_of: FolderOf) -> Self:
        voices = espeak_voices.found()
        voice = self.voice or _for_language(self.language, voices)
        if voices and not voices.has(voice):
            base = voice.partition("+")[0]
            near = difflib.get_close_matches(base, voices.by_id, n=1)
            hint = f"; did you mean {near[0]!r}?" if near and near[0] != base else ""
            raise PathProblem("voice", f"espeak-ng has no voice {shown(voice)}{hint} (as in en-us, de or en-us+f3)")
        return self.model_copy(
            update={**self.located_settings(folder_of), **self.located_variables(folder_of), "voice": voice}
        )

    def reads(self, language: str) -> frozenset[str]:
        """Return the scripts of the language, without kanji, which eSpeak NG cannot read."""
        scripts = super().reads(language)
        return scripts - {HAN} if language.partition("-")[0] == "ja" else scripts

    def voice_for(self, language: str, like: str | None, known: Sequence[Voice]) -> str | None:
        """Return the voice for a language, with the variant of the default voice."""
        voices = espeak_voices.found()
        voice = voices.for_language(language) if voices is not None else None
        _, plus, variant = (like or self.voice or "").partition("+")
        return None if voice is None else voice + plus + variant

    def language_of(self, voice: str | None, known: Sequence[Voice]) -> str | None:
        return super().language_of((voice or self.voice or DEFAULT_VOICE).partition("+")[0], known)

    async def known_voices(self) -> list[Voice] | None:
        voices = await asyncio.to_thread(espeak_voices.found)
        return None if voices is None else self._offered(voices)

    def has_voice(self, voice: str) -> bool:
        """Return True for any language with any variant."""
        voices = espeak_voices.found()
        return voices is not None and voices.has(voice)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        voices = await asyncio.to_thread(espeak_voices.found)
        options: dict[str, Any] = dict(self.identity().options)
        if voices is not None:
            options["files"] = {each.id: each.file for each in voices.by_id.values()}
            options["variants"] = voices.variants
        setup = WorkerSetup(needs="espeakng_loader", variables=await self.variables())
        return await start_worker(name, "espeak-ng", options, setup, report)

    def _offered(self, voices: EspeakVoices) -> list[Voice]:
        """Return the default voice, then all others; variants only if the entry uses them: there are thousands."""
        default = (self.voice or DEFAULT_VOICE).partition("+")[0]
        varied = [f"{default}+{variant}" for variant in voices.variants]
        mapped = [voice.voice for voice in self.voices.values() if voice.voice and voices.has(voice.voice)]
        return [voices.voice(each) for each in dict.fromkeys([default, *voices.by_id, *varied, *mapped])]


def _for_language(language: str | None, voices: EspeakVoices | None) -> str:
    """Return the voice for a language; the default voice if it speaks the language, or if no voice does."""
    if language is None or voices is None or DEFAULT_VOICE.startswith(language.lower()):
        return DEFAULT_VOICE
    return voices.for_language(language) or DEFAULT_VOICE
