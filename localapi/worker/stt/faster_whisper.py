"""Whisper by faster-whisper and CTranslate2, on the CPU, in its own environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from faster_whisper import WhisperModel  # type: ignore[import-not-found]
from faster_whisper.vad import get_vad_model  # type: ignore[import-not-found]

from localapi.worker.hub.repository import located
from localapi.worker.model import CannotLoad, Host, first_line
from localapi.worker.protocol import Loaded, Loading, Transcribe, TranscriptSegment, WordTime
from localapi.worker.stt.pieces import BLOCK_SAMPLES, Detector, Piece
from localapi.worker.stt.transcribing import FULL_SCALE, Recognized, Transcribing, samples
from localapi.worker.turns import RequestRefused

PATTERNS: Final = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
SURE: Final = 0.5
"""Probability above which a language counts as detected."""
CONTEXT_SAMPLES: Final = 64
"""Samples of the previous block, which Silero's network gets with each block."""
LEAST_SECONDS: Final = 0.5
"""Shortest speech after the last segment of a piece that is worth processing, because ends of segments are not exact.
"""
MEMORY: Final = 128
"""Size of the detector's state."""
_NATIVE_CALLS: Final = frozenset({"encode", "generate", "detect_language", "align"})


def load(options: dict[str, Any], host: Host) -> FasterWhisper:
    """Return the model of an entry's options. Raise CannotLoad."""
    folder = located(options["path"], options.get("revision"), host.report, patterns=PATTERNS)
    if not (folder / "model.bin").is_file():
        found = ", ".join(sorted(each.name for each in folder.iterdir())[:8]) or "an empty folder"
        raise CannotLoad(
            f"{folder} contains no model.bin; found: {found}. faster-whisper needs a model in CTranslate2's "
            f"format, such "
            "as Systran/faster-whisper-small."
        )
    host.report(Loading(phase="reading weights"))
    return FasterWhisper(_model(folder, options), options, host.cancelled)


def _model(folder: Path, options: dict[str, Any]) -> Any:
    try:
        return WhisperModel(
            str(folder),
            device="cpu",
            compute_type=options.get("compute_type") or "int8",
            cpu_threads=options.get("threads") or 0,
            local_files_only=True,
        )
    except Exception as error:  # CTranslate2's errors have no particular class
        raise CannotLoad(f"faster-whisper cannot load the model in {folder}: {first_line(error)}.") from error


class FasterWhisper(Transcribing):
    """One loaded model. See `worker.model.Model`."""

    def __init__(self, whisper: Any, options: dict[str, Any], cancelled: Callable[[int], bool]) -> None:
        super().__init__(options, whisper.supported_languages)
        self._whisper = whisper
        self._beam_size = options.get("beam_size") or 5
        self._cancelled = cancelled
        self._running = 0
        """Number of the request that is being transcribed."""
        self._piece: Piece | None = None
        """Piece that is being transcribed, once it has a segment, and where the last segment ends."""
        self._heard_seconds = 0.0
        whisper.model = _Watched(whisper.model, self._before_call)
        self.loaded = Loaded(batched=False)

    def _recognized(self, piece: Piece, request: Transcribe, language: str | None) -> Recognized:
        self._running = request.id
        self._piece, self._heard_seconds = None, 0.0
        settings: dict[str, Any] = {}
        if request.temperature:  # 0 is raised only if the text is bad, as by default
            settings["temperature"] = request.temperature
        heard, about = self._whisper.transcribe(
            samples(piece),
            task="translate" if request.translate else "transcribe",
            language=language,
            beam_size=self._beam_size,
            initial_prompt=request.prompt,
            word_timestamps=request.words,
            **settings,
        )
        segments: list[TranscriptSegment] = []
        heard_seconds: float | None = None
        try:
            for each in heard:
                segments.append(_segment(each))
                self._piece, self._heard_seconds = piece, segments[-1].end_seconds
        except _Enough as enough:
            heard_seconds = enough.heard_seconds
        sure = about.language_probability >= SURE
        return Recognized(segments, about.language if sure else None, heard_seconds)

    def _detector(self) -> Detector:
        return Silero()

    def _before_call(self, name: str) -> None:
        if self._cancelled(self._running):
            raise RequestRefused("file", "The request was cancelled.")
        if name != "encode" or self._piece is None:
            return
        # faster-whisper continues where the last segment ends, and takes as long for the rest as for a whole piece.
        left = self._piece.seconds - self._heard_seconds
        if left - self._piece.silence_seconds < LEAST_SECONDS:
            raise _Enough(None)
        if left <= self._piece.deferrable_seconds:
            raise _Enough(self._heard_seconds)


class Silero:
    """Silero's speech detector, which the package includes, with its state."""

    def __init__(self) -> None:
        self._session = get_vad_model().session
        self._memory = [np.zeros((1, 1, MEMORY), np.float32) for _ in range(2)]
        self._before = np.zeros((1, CONTEXT_SAMPLES), np.float32)

    def __call__(self, pcm: bytes) -> list[float]:
        """Return the probability of speech in each block. Each block is processed with the end of the previous one."""
        blocks = np.frombuffer(pcm, "<i2").astype(np.float32).reshape(-1, BLOCK_SAMPLES) / FULL_SCALE
        ends = blocks[:, -CONTEXT_SAMPLES:]
        heard = np.concatenate([np.concatenate([self._before, ends[:-1]]), blocks], axis=1)
        likely, *self._memory = self._session.run(None, {"input": heard, "h": self._memory[0], "c": self._memory[1]})
        self._before = ends[-1:]
        found: list[float] = np.asarray(likely, np.float32).ravel().tolist()
        return found


class _Enough(Exception):
    """The rest of a piece need not be processed now. `heard_seconds` is as in Recognized."""

    def __init__(self, heard_seconds: float | None) -> None:
        super().__init__()
        self.heard_seconds = heard_seconds


class _Watched:
    """CTranslate2's model, with a function that is called before each of its long calls, and may raise."""

    def __init__(self, model: Any, before_call: Callable[[str], None]) -> None:
        self._model = model
        self._before_call = before_call

    def __getattr__(self, name: str) -> Any:
        if name in _NATIVE_CALLS:
            self._before_call(name)
        return getattr(self._model, name)


def _segment(heard: Any) -> TranscriptSegment:
    words = [WordTime(word.word, float(word.start), float(word.end)) for word in heard.words or ()]
    return TranscriptSegment(
        start_seconds=float(heard.start),
        end_seconds=float(heard.end),
        text=heard.text,
        words=words,
        tokens=[int(token) for token in heard.tokens],
        temperature=float(heard.temperature or 0.0),
        avg_logprob=float(heard.avg_logprob),
        compression_ratio=float(heard.compression_ratio),
        no_speech_prob=float(heard.no_speech_prob),
    )
