"""Speech by Piper: small voices that are fast on any processor, several sentences at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localapi.worker.model import Host
from localapi.worker.protocol import Event, Failed, Loaded, Loading, Request, Sound, Speak, Spoken, WordTimes
from localapi.worker.tts.piper_model import Phonemes, PiperModel, PiperSettings, SaidPhoneme, cores
from localapi.worker.tts.synthesis_pool import SynthesisPool
from localapi.worker.tts.word_times import said_words

NO_TIMES = "this voice does not report when each word is spoken"


def load(options: dict[str, Any], host: Host) -> Piper:
    """Return the voice of an entry's options. Raise CannotLoad."""
    host.report(Loading(phase="reading the voice"))
    voice = PiperModel(Path(options["path"]), options.get("volume", 1.0))
    host.report(Loading(phase="speaking for the first time"))
    voice.warm_up()
    return Piper(voice, options, host)


class Piper:
    """One voice of Piper. See `worker.model.Model`."""

    def __init__(self, voice: PiperModel, options: Mapping[str, Any], host: Host) -> None:
        self._voice = voice
        self._options = options
        self._speakers = _speakers(voice, Path(options["path"]))
        self._turns = SynthesisPool(cores(), host.wake)
        self.loaded = Loaded()

    waiting = tokens = 0

    @property
    def busy(self) -> bool:
        return self._turns.busy

    def take(self, request: Request) -> None:
        assert isinstance(request, Speak), request  # noqa: S101  # the server sends text requests to chat models only
        try:
            speaker = self._speaker(request.voice)
        except LookupError:
            known = ", ".join(self._speakers)
            message = f"This model has no voice {request.voice!r}. Its voices: {known}."
            self._turns.say(Failed(request.id, "invalid_request", message, param="voice"))
            return
        settings = PiperSettings(
            speaker=speaker,
            noise_scale=self._options.get("noise_scale"),
            noise_w_scale=self._options.get("noise_w_scale"),
        )
        parts = [SegmentJob(self._voice, settings, request, segment) for segment in range(len(request.segments))]
        notes = [NO_TIMES] if request.times and not self._voice.tells_phonemes else []
        self._turns.add(request.id, parts, Spoken(request.id, notes))

    def cancel(self, id: int) -> None:  # noqa: A002  # the protocol's word
        self._turns.drop(id)

    def step(self) -> list[Event]:
        return self._turns.events()

    def save_some(self) -> bool:
        return False

    def _speaker(self, name: str | None) -> int | None:
        """Return the number of a speaker given by name or number. Raise LookupError."""
        wanted = self._options.get("speaker") if name is None else name
        if wanted is None:
            return None
        for speaker, number in self._speakers.items():
            if speaker.casefold() == str(wanted).casefold():
                return number
        numbers = {str(number): number for number in range(self._voice.config.num_speakers)}
        return numbers[str(wanted)]


class SegmentJob:
    """Job that synthesizes one segment of a request, sentence by sentence. See `synthesis_pool.Job`."""

    def __init__(self, voice: PiperModel, settings: PiperSettings, request: Speak, index: int) -> None:
        self._voice = voice
        self._settings = settings
        self._request = request
        self._index = index
        self._sentences: deque[Phonemes] | None = None
        self._said: list[SaidPhoneme] | None = []
        self._samples = 0

    @property
    def done(self) -> bool:
        return self._sentences is not None and not self._sentences

    def advance(self, *, alone: bool) -> list[Event]:
        if self._sentences is None:
            self._sentences = deque(self._voice.sentences(self._text))
        if not self._sentences:
            return []
        speech = self._voice.say(
            self._sentences[0], self._settings, alone=alone, speed=self._request.speed, times=self._request.times
        )
        if self._said is not None and speech.phonemes is not None:
            self._said += [
                SaidPhoneme(each.phoneme, each.start + self._samples, each.end + self._samples)
                for each in speech.phonemes
            ]
        else:
            self._said = None
        self._samples += speech.samples.size
        rate = self._voice.config.sample_rate
        events: list[Event] = [Sound(self._request.id, self._index, speech.samples.tobytes(), rate)]
        if len(self._sentences) == 1 and self._request.times and self._said is not None:
            words = said_words(self._text, self._voice.pieces(self._text, self._said))
            events.append(WordTimes(self._request.id, self._index, words))
        self._sentences.popleft()
        return events

    @property
    def _text(self) -> str:
        return self._request.segments[self._index]


def _speakers(voice: PiperModel, path: Path) -> dict[str, int | None]:
    """Return the numbers of the speakers by name. The only speaker of a voice has the voice's name."""
    config = voice.config
    if config.num_speakers <= 1:
        return {path.stem: None}
    names = {number: name for name, number in config.speaker_id_map.items()}
    return {names.get(number, str(number)): number for number in range(config.num_speakers)}
