"""Speech by eSpeak NG. A sentence takes some milliseconds, so requests take turns segment by segment."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Event, Failed, Loaded, Loading, Request, Sound, Speak, Spoken, WordTimes
from localapi.worker.tts.espeak_library import EspeakSpeech, Library, library
from localapi.worker.tts.word_times import said_words

USUAL_WPM, USUAL_PITCH = 175, 50


class UnknownVoice(Exception):
    """There is no such voice."""


def load(options: dict[str, Any], host: Host) -> EspeakNg:
    """Return a model with the voices that the server found in the library's data. Raises CannotLoad."""
    host.report(Loading(phase="starting eSpeak NG"))
    engine = EspeakNg(library(), options)
    try:
        engine.speak("1", None)
    except (UnknownVoice, ValueError, RuntimeError) as error:
        raise CannotLoad(f"eSpeak NG cannot speak with the voice {options['voice']!r}: {error}") from error
    return engine


@dataclass
class _QueuedRequest:
    """A request, and its next segment."""

    request: Speak
    segment: int = 0


class EspeakNg:
    """All voices of eSpeak NG. See `worker.model.Model`."""

    def __init__(self, library: Library, options: Mapping[str, Any]) -> None:
        self._library = library
        self._options = options
        self._files: Mapping[str, str] = options["files"]
        self._variants: dict[str, str] = {variant.lower(): variant for variant in options["variants"]}
        self._asked: deque[_QueuedRequest] = deque()
        """The requests in the order of their turns."""
        self.loaded = Loaded(batched=False)

    waiting = tokens = 0

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def take(self, request: Request) -> None:
        assert isinstance(request, Speak), request  # noqa: S101  # the server sends text requests to chat models only
        if any(asked.request.id == request.id for asked in self._asked):
            print(f"request {request.id} came twice; the second is ignored", file=sys.stderr)  # noqa: T201
            return
        self._asked.append(_QueuedRequest(request))

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        self._asked = deque(asked for asked in self._asked if asked.request.id != id)

    def step(self) -> list[Event]:
        """Synthesize one segment. Two minutes of speech without a full stop take a fifth of a second."""
        if not self._asked:
            return []
        asked = self._asked.popleft()
        request, segment = asked.request, asked.segment
        if segment == len(request.segments):
            return [Spoken(request.id)]
        try:
            events = self._segment(request, segment)
        except UnknownVoice as error:
            return [Failed(request.id, "invalid_request", str(error), param="voice")]
        except Exception as error:  # fails this request alone
            message = f"Speech synthesis failed: {type(error).__name__}: {error}"
            return [Failed(request.id, "generation_failed", message)]
        asked.segment += 1
        if asked.segment == len(request.segments):
            return [*events, Spoken(request.id)]
        self._asked.append(asked)
        return events

    def save_some(self) -> bool:
        return False

    def speak(self, text: str, voice: str | None) -> EspeakSpeech:
        """Return a text as speech. Raises UnknownVoice."""
        return self._library.speak(
            text,
            self._file(voice or self._options["voice"]),
            rate_wpm=self._options.get("rate_wpm", USUAL_WPM),
            pitch=self._options.get("pitch", USUAL_PITCH),
        )

    def _segment(self, request: Speak, segment: int) -> list[Event]:
        text = request.segments[segment]
        speech = self.speak(text, request.voice)
        if not speech.pcm:
            return []
        events: list[Event] = [Sound(request.id, segment, speech.pcm, self._library.sample_rate_hz)]
        if request.times:
            events.append(WordTimes(request.id, segment, said_words(text, speech.pieces)))
        return events

    def _file(self, voice: str) -> str:
        """Return the library's name of a voice. Raises UnknownVoice.

        Unknown variants are refused, too, because the library would read any file.
        """
        language, plus, variant = voice.partition("+")
        file = self._files.get(language.lower())
        variant = self._variants.get(variant.lower(), "")
        if file is None or (plus and not variant):
            known = ", ".join(self._files)
            variants = ", ".join(sorted(self._variants.values()))
            raise UnknownVoice(
                f"eSpeak NG has no voice {voice!r}. Its voices: {known}. Each may be followed by a plus and a variant, "
                f"as in {self._options['voice'].partition('+')[0]}+f3: {variants}."
            )
        return file + plus + variant
