"""A loaded Piper voice: from text to phonemes, and from phonemes to audio. This module knows no requests.

The audio has the loudness with which the voice was trained. Piper normalizes each sentence by default, so a whispered
sentence would be as loud as a cry. A sentence that would clip at full scale is made quieter as a whole.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]
from piper import PiperVoice
from piper.config import PhonemeType, PiperConfig
from piper.const import BOS, EOS, PAD

from localapi.worker.model import CannotLoad, first_line
from localapi.worker.protocol import PHONEMES
from localapi.worker.tts.onnx_graph import with_end_of, with_same_noise
from localapi.worker.tts.word_times import WORD, SpokenPiece, paired

MAX_PHONEMES = 1_000
"""Maximum phonemes of a sentence; longer ones are split at a space. The cost grows with the square of the length, so a
text without a full stop could take all memory."""
FULL_SCALE = 32_767
WARM_UP = "1"
"""A digit, which is spoken in every language."""
FASTEST_VOICE = 2.0
"""Maximum speed of a voice: a phoneme takes at least one frame, so at four times the speed nearly all phonemes would
have the same length. Higher speeds are applied to the audio."""
_OUTPUTS = 2
"""The sound and the frames of each phoneme. A third output has the frames before rounding up."""
_ROUNDING = 1e-4
"""Fraction of a frame that multiplying may have added."""
_ERRORS_ONLY = 3

logging.getLogger("piper").setLevel(logging.ERROR)  # it warns about each letter that a voice has no sound for

Phonemes = list[str]
Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class SaidPhoneme:
    """A phoneme and its samples."""

    phoneme: str
    start: int
    end: int


@dataclass(frozen=True)
class PiperSettings:
    """Parameters of the synthesis. None for the voice's default."""

    speaker: int | None = None
    noise_scale: float | None = None
    noise_w_scale: float | None = None


@dataclass(frozen=True)
class _Frames:
    """Frames of each phoneme: whole numbers, and the values that were rounded up."""

    whole: npt.NDArray[np.float32]
    exact: npt.NDArray[np.float32] | None = None

    def share_of_natural(self, speed: float) -> float:
        """Return the number of frames relative to the normal number at this speed, which rounding has changed."""
        if self.exact is None:
            return 1.0
        natural = np.ceil(self.exact.astype(np.float64) * speed - _ROUNDING).sum()
        return float(self.whole.sum(dtype=np.float64) / max(natural, 1.0))

    @property
    def ends(self) -> npt.NDArray[np.float64]:
        """End of each phoneme, as a share of the whole."""
        ends = np.cumsum(self.whole.astype(np.float64))
        return np.asarray(ends / max(ends[-1], 1.0), np.float64)


@dataclass(frozen=True)
class PiperSpeech:
    """A synthesized sentence."""

    samples: Samples
    phonemes: list[SaidPhoneme] | None
    """Phonemes; None if the voice does not report them, or they were not requested."""


class PiperModel:
    """The model of one voice. Several threads may use it at the same time."""

    def __init__(self, path: Path, volume: float) -> None:
        """Read the voice. Raise CannotLoad."""
        config_path = path.with_name(f"{path.name}.json")
        try:
            self.config = PiperConfig.from_dict(json.loads(config_path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CannotLoad(
                f"{config_path} is not the configuration of a Piper voice: {type(error).__name__}: {error}"
            ) from error
        self._volume = volume
        self._reading = threading.Lock()
        """Needed because only one of Piper's phonemizers, that of espeak-ng, has its own lock."""
        self._one_core = PiperVoice(_session(path, threads=1), self.config, download_dir=path.parent)
        self._all_cores = self._one_core
        if cores() > 1:
            # A second copy of the weights. With its own threads, a session speaks one sentence sooner; without,
            # several sentences together take less processor time.
            self._all_cores = PiperVoice(_session(path, threads=0), self.config, download_dir=path.parent)
        outputs = len(self._one_core.session.get_outputs())
        self.tells_phonemes = outputs > 1
        self._tells_exact_lengths = outputs > _OUTPUTS

    def warm_up(self) -> None:
        """Synthesize something once, so that a voice that cannot speak fails now. Raise CannotLoad."""
        try:
            for phonemes in self._read(WARM_UP) or [[]]:
                self.say(phonemes, PiperSettings(), alone=True)
                self.say(phonemes, PiperSettings(), alone=False)
        except Exception as error:
            espeak_voice = f"espeak-ng's voice {self.config.espeak_voice!r}, which its configuration names"
            is_espeak = self.config.phoneme_type == PhonemeType.ESPEAK
            hint = f" Does this espeak-ng have {espeak_voice}?" if is_espeak else ""
            raise CannotLoad(
                f"The voice was read but cannot speak: {type(error).__name__}: {first_line(error)}.{hint}"
            ) from error

    def sentences(self, text: str) -> Iterator[Phonemes]:
        """Yield the sentences of a text that contain something to say, as phonemes."""
        for sentence in self._read(plain(text)):
            if not any(map(str.isalnum, sentence)):
                continue
            while len(sentence) > MAX_PHONEMES:
                blanks = [at for at in range(1, MAX_PHONEMES) if sentence[at] == " "]
                at = blanks[-1] if blanks else MAX_PHONEMES
                yield sentence[:at]
                sentence = sentence[at:]  # noqa: PLW2901  # its rest
            yield sentence

    def say(
        self, phonemes: Phonemes, settings: PiperSettings, *, alone: bool, speed: float = 1.0, times: bool = False
    ) -> PiperSpeech:
        """Synthesize one sentence. If `alone`, all cores are free for it.

        Raise ValueError if the output is not a number. The sentence lasts exactly 1 / `speed` of its normal length. The
        voice is asked for a length that it can speak well, and the rest of the speed is applied to its audio.
        """
        voice = self._all_cores if alone else self._one_core
        ids = voice.phonemes_to_ids(phonemes)
        by_voice = min(speed, FASTEST_VOICE) if self._tells_exact_lengths else 1.0
        sound, frames = self._run(voice.session, ids, self.config.length_scale / by_voice, settings)
        loud = sound * self._volume
        peak = float(np.max(np.abs(loud), initial=0))
        if not np.isfinite(peak):
            raise ValueError("the model's output is not a number")
        samples = np.rint(loud * (FULL_SCALE / max(peak, 1.0))).astype(np.int16)
        if speed != 1:
            from localapi.audio.tempo import FASTEST, SLOWEST, Tempo  # noqa: PLC0415  # slow to import and seldom needed

            missing = speed if frames is None else speed * frames.share_of_natural(by_voice)
            tempo = Tempo(self.config.sample_rate, min(max(missing, SLOWEST), FASTEST))
            samples = np.frombuffer(tempo.feed(samples.tobytes()) + tempo.finish(), np.int16)
        said = self._said(phonemes, ids, frames.ends * samples.size) if times and frames is not None else None
        return PiperSpeech(samples, said)

    def pieces(self, text: str, said: list[SaidPhoneme]) -> Iterator[SpokenPiece]:
        """Yield where the words of a text are among its phonemes.

        For this, the words are read one by one, and both readings are compared: the voice speaks "of the" as one word.
        """
        text = plain(text)
        read = [
            (word.start(), phoneme)
            for word in WORD.finditer(text)
            for sentence in self._read(word[0])
            for phoneme in sentence
            if phoneme.isalnum()
        ]
        sounds = [each for each in said if each.phoneme.isalnum()]
        rate = self.config.sample_rate
        for at, among in paired([phoneme for _, phoneme in read], [each.phoneme for each in sounds]):
            yield SpokenPiece(read[at][0], sounds[among].start / rate, sounds[among].end / rate)

    def _read(self, text: str) -> list[Phonemes]:
        begin, end = PHONEMES
        with self._reading:
            return self._one_core.phonemize(text.replace(begin, "[[").replace(end, "]]"))

    def _run(
        self, session: onnxruntime.InferenceSession, ids: list[int], scale: float, settings: PiperSettings
    ) -> tuple[npt.NDArray[np.float32], _Frames | None]:
        """Return the audio of phonemes, and the frames of each if the voice reports them."""
        config = self.config
        noise = config.noise_scale if settings.noise_scale is None else settings.noise_scale
        noise_w = config.noise_w_scale if settings.noise_w_scale is None else settings.noise_w_scale
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([noise, scale, noise_w], np.float32),
        }
        if config.num_speakers > 1:
            speaker = config.default_speaker_id if settings.speaker is None else settings.speaker
            inputs["sid"] = np.array([speaker], np.int64)
        sound, *lengths = (np.asarray(output, np.float32).reshape(-1) for output in session.run(None, inputs))
        return sound, _Frames(*lengths) if lengths else None

    def _said(self, phonemes: Phonemes, ids: list[int], id_ends: npt.NDArray[Any]) -> list[SaidPhoneme] | None:
        """Return the phonemes with their samples; None if the numbers do not fit them."""
        table = self.config.phoneme_id_map
        known = [phoneme for phoneme in phonemes if phoneme in table]
        padding = len(table[PAD])
        counts = [len(table[BOS]) + padding, *(len(table[each]) + padding for each in known), len(table[EOS])]
        if sum(counts) != len(ids) or len(ids) != id_ends.size:
            return None
        ends = np.concatenate([[0], id_ends])[np.concatenate([[0], np.cumsum(counts)])]
        spans = zip(known, ends[1:], ends[2:], strict=False)
        return [SaidPhoneme(phoneme, int(start), int(end)) for phoneme, start, end in spans]


def cores() -> int:
    """Return the number of cores that this process may use."""
    available: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def plain(text: str) -> str:
    """Return the text without what Piper would interpret as a command. Its length stays the same.

    `[[` would start phonemes, and a NUL character ends the text for espeak-ng.
    """
    return re.sub(r"\[(?=\[)", " ", text.replace("\0", " ")).encode("utf-8", "replace").decode()


def _session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """Return a session of the model, with an output for the length of each phoneme, which files from the Hub lack.

    `threads` is the number for one run; 0 for one per core. Raise CannotLoad.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    providers = ["CPUExecutionProvider"]
    try:
        try:
            model = with_same_noise(path.read_bytes(), "input")
            for end in ("output", "input"):
                model = with_end_of("Ceil", end, model)
            return onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception:  # it differs from other voices, or its weights are in another file
            return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise CannotLoad(f"ONNX Runtime cannot run {path}: {first_line(error)}.") from error
