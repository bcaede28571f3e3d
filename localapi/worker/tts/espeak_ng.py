"""Speech by eSpeak NG. A sentence takes some milliseconds; two minutes of speech without a full stop, 0.2 seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Loaded, Loading, Sound, Speak, WordTimes
from localapi.worker.tts.espeak_library import EspeakSpeech, Library, library
from localapi.worker.tts.word_times import said_words
from localapi.worker.turns import Pieces, RequestRefused, Speaking

USUAL_WPM, USUAL_PITCH = 175, 50


def load(options: dict[str, Any], host: Host) -> EspeakNg:
    """Return a model with the voices that the server found in the library's data. Raise CannotLoad."""
    host.report(Loading(phase="starting eSpeak NG"))
    engine = EspeakNg(library(), options)
    try:
        engine.speak("1", None)
    except (RequestRefused, ValueError, RuntimeError) as error:
        raise CannotLoad(f"eSpeak NG cannot speak with the voice {options['voice']!r}: {error}") from error
    return engine


class EspeakNg(Speaking):
    """All voices of eSpeak NG. See `worker.model.Model`."""

    def __init__(self, library: Library, options: Mapping[str, Any]) -> None:
        super().__init__()
        self._library = library
        self._options = options
        self._files: Mapping[str, str] = options["files"]
        self._variants: dict[str, str] = {variant.lower(): variant for variant in options["variants"]}
        self.loaded = Loaded(batched=False)

    def speak(self, text: str, voice: str | None) -> EspeakSpeech:
        """Return a text as speech. Raise RequestRefused."""
        return self._library.speak(
            text,
            self._file(voice or self._options["voice"]),
            rate_wpm=self._options.get("rate_wpm", USUAL_WPM),
            pitch=self._options.get("pitch", USUAL_PITCH),
        )

    def _say(self, request: Speak, notes: list[str]) -> Pieces:
        for segment, text in enumerate(request.segments):
            speech = self.speak(text, request.voice)
            if speech.pcm:
                yield Sound(request.id, segment, speech.pcm, self._library.sample_rate_hz)
                if request.times:
                    yield WordTimes(request.id, segment, said_words(text, speech.pieces))
            yield None

    def _file(self, voice: str) -> str:
        """Return the library's name of a voice. Raise RequestRefused.

        Unknown variants are refused, too, because the library would read any file.
        """
        language, plus, variant = voice.partition("+")
        file = self._files.get(language.lower())
        variant = self._variants.get(variant.lower(), "")
        if file is None or (plus and not variant):
            known = ", ".join(self._files)
            variants = ", ".join(sorted(self._variants.values()))
            raise RequestRefused(
                "voice",
                f"eSpeak NG has no voice {voice!r}. Its voices: {known}. Each may be followed by a plus and a variant, "
                f"as in {self._options['voice'].partition('+')[0]}+f3: {variants}.",
            )
        return file + plus + variant
