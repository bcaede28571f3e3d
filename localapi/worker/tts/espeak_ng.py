"""Speech by eSpeak NG. A sentence takes some milliseconds; two minutes of speech without a full stop, 0.2 seconds."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import espeakng_loader  # type: ignore[import-untyped]
import numpy as np

from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Loaded, Loading, Sound, Speak, WordTimes
from localapi.worker.tts.word_times import SpokenPiece, said_words
from localapi.worker.turns import Pieces, RequestRefused, Speaking

_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_POSITION_IN_CHARACTERS = 1
_UTF_8_AND_PAUSE_AT_THE_END = 1 | 0x1000
_LIST_ENDS, _WORD, _CLAUSE_ENDS = 0, 1, 5
_RATE, _PITCH = 1, 3
_SILENCE = 30
"""Level, of 32,767, below which samples are a pause."""


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Events = ctypes.POINTER(_Event)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, _Events)


@dataclass(frozen=True)
class EspeakSpeech:
    """Spoken text."""

    pcm: bytes
    """16-bit little-endian mono samples; empty if nothing of the text is spoken."""
    pieces: list[SpokenPiece]
    """Words as espeak-ng counts them."""


@cache
def library() -> Library:
    """Return the one library of this process. Raise CannotLoad."""
    return Library()


class Library:
    """Initialized library.

    Use `library` to get it, because the callback belongs to the instance that was created last.
    """

    def __init__(self) -> None:
        """Load and start the library. Raise CannotLoad."""
        try:
            data = espeakng_loader.get_data_path()
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        except (OSError, RuntimeError) as error:
            raise CannotLoad(f"eSpeak NG's library cannot be loaded: {error}") from error
        c_int, text = ctypes.c_int, ctypes.c_char_p
        self._library.espeak_Initialize.argtypes = [c_int, c_int, text, c_int]
        self._library.espeak_SetVoiceByName.argtypes = [text]
        self._library.espeak_SetParameter.argtypes = [c_int, c_int, c_int]
        self._library.espeak_SetSynthCallback.argtypes = [_Callback]
        self._library.espeak_SetSynthCallback.restype = None
        self._library.espeak_Synth.argtypes = [
            *(text, ctypes.c_size_t, ctypes.c_uint, c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p),
        ]
        self.sample_rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DO_NOT_EXIT)
        if self.sample_rate_hz <= 0:
            raise CannotLoad(f"eSpeak NG cannot start with its data in {data} (a path of {len(data)} characters).")
        self._callback = _Callback(self._heard)  # kept, because the library holds no reference
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""
        self._pcm: list[bytes] = []
        self._marks: list[tuple[int, int, int]] = []
        """Type of event, position in the text (from 1), sample."""

    def speak(self, text: str, voice: str, *, rate_wpm: int, pitch: int) -> EspeakSpeech:
        """Return a text as speech, about 600 times faster than real time.

        `voice` is one of the data's files, optionally with a variant after a plus: "gmw/en-US+f3". Raise ValueError for
        others.
        """
        if voice != self._voice:
            if self._library.espeak_SetVoiceByName(voice.encode()):
                raise ValueError(f"eSpeak NG cannot find its voice {voice!r}")
            self._voice = voice
        self._library.espeak_SetParameter(_RATE, rate_wpm, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._pcm, self._marks = [], []
        written = text.replace("\0", " ").encode("utf-8", "replace") + b"\0"
        status = self._library.espeak_Synth(
            written, len(written), 0, _POSITION_IN_CHARACTERS, 0, _UTF_8_AND_PAUSE_AT_THE_END, None, None
        )
        if status:
            raise RuntimeError(f"eSpeak NG's synthesis failed with status {status}")
        if not any(kind == _WORD for kind, _, _ in self._marks):
            return EspeakSpeech(b"", [])
        pcm = b"".join(self._pcm)
        return EspeakSpeech(pcm, self._pieces(pcm))

    def _heard(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        """Collect a piece of audio and its events, as the library's callback."""
        if samples and count > 0:
            self._pcm.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != _LIST_ENDS:
            event = events[index]
            self._marks.append((event.type, event.text_position, event.sample))
            index += 1
        return 0

    def _pieces(self, pcm: bytes) -> list[SpokenPiece]:
        """Return the words. Each ends with its sound, before any pause that follows."""
        loud = np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > _SILENCE)
        marks = [mark for mark in self._marks if mark[0] in (_WORD, _CLAUSE_ENDS)]
        pieces = []
        for (kind, position, start), (_, _, until) in pairwise([*marks, (_CLAUSE_ENDS, 0, len(pcm) // 2)]):
            if kind == _WORD:
                last = int(np.searchsorted(loud, until)) - 1
                end = int(loud[last]) + 1 if last >= 0 and loud[last] >= start else until
                rate = self.sample_rate_hz
                pieces.append(SpokenPiece(position - 1, start / rate, max(end, start) / rate))
        return pieces


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

        Unknown variants are refused too, because the library would read any file.
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
