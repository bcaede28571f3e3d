"""Transcribe files: decode them gradually, split them into pieces, transcribe each, and check the result.

Memory does not grow with the file: at most one piece of it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from localapi.audio.decoder import NotAudio, decode_file
from localapi.worker.protocol import (
    Event,
    Heard,
    Listening,
    Transcribe,
    Transcribed,
    TranscriptSegment,
    WordTime,
)
from localapi.worker.stt.pieces import LONG_SECONDS, SAMPLE_RATE_HZ, Cutter, Detector, Piece, loudness
from localapi.worker.turns import Pieces, RequestRefused, TurnTaking

REPORT_SECONDS: Final = 20.0
"""Length of audio that may be decoded without a sign of life."""
WITHOUT_SPACES: Final = frozenset({"ja", "km", "lo", "my", "th", "yue", "zh"})
"""Languages without spaces between sentences."""
FULL_SCALE: Final = 32768.0


@dataclass(frozen=True)
class Recognized:
    """Speech recognized in a piece. Times are in seconds of the piece."""

    segments: Sequence[TranscriptSegment]
    language: str | None = None
    """Language; None if the model does not report it, or is not sure."""
    heard_seconds: float | None = None
    """Part of the piece that was processed. The rest, at most the deferrable part, is processed with the next one. None
    for all."""


class Transcribing(TurnTaking[Transcribe]):
    """Part of a model that knows files. A subclass transcribes pieces."""

    task = "Transcription"

    def __init__(self, options: Mapping[str, Any], languages: Iterable[str] = ()) -> None:
        """Create it with the codes of the languages that the model knows; none if it does not report them."""
        super().__init__()
        self._known_languages = frozenset(languages)
        self._skips_silence = bool(options.get("vad", True))

    def _recognized(self, piece: Piece, request: Transcribe, language: str | None) -> Recognized:
        """Return the transcript of a piece. `language` is the requested one, or the one detected in earlier pieces."""
        raise NotImplementedError

    def _answer(self, request: Transcribe) -> Pieces:
        if request.language is not None and self._known_languages and request.language not in self._known_languages:
            raise RequestRefused(
                "language",
                f"The model does not know the language {request.language!r}. It knows: "
                f"{', '.join(sorted(self._known_languages))}.",
            )
        cutter = Cutter(self._detector() if self._skips_silence else loudness, keeps_all=not self._skips_silence)
        language = request.language
        told = total = 0.0
        try:
            for decoded in decode_file(
                Path(request.path), sample_rate_hz=SAMPLE_RATE_HZ, max_seconds=request.max_seconds
            ):
                if not cutter.seconds:
                    cutter.hurries = decoded.total_seconds >= LONG_SECONDS
                total = decoded.total_seconds
                for piece in cutter.feed(decoded.pcm):
                    events, language, heard_seconds = self._heard(piece, request, language)
                    if heard_seconds is not None:
                        cutter.defer(heard_seconds)
                    yield from events
                    told = piece.end_seconds
                    yield Listening(request.id, told, total)
                    yield None
                if cutter.seconds - told >= REPORT_SECONDS:
                    told = cutter.seconds
                    yield Listening(request.id, told, total)
                    yield None
            for piece in cutter.finish():
                events, language, _ = self._heard(piece, request, language)
                yield from events
        except NotAudio as error:
            raise RequestRefused("file", str(error)) from error
        yield Transcribed(request.id, cutter.seconds, language)

    def _heard(
        self, piece: Piece, request: Transcribe, language: str | None
    ) -> tuple[list[Event], str | None, float | None]:
        """Return the events for a piece, the language from here on, and how much was processed."""
        recognized = self._recognized(piece, request, language)
        language = language or recognized.language
        segments = checked(recognized.segments, piece, language)
        return [Heard(request.id, segments)] if segments else [], language, recognized.heard_seconds

    def _detector(self) -> Detector:
        """Return a new speech detector. Without a better one, loud audio counts as speech."""
        return loudness


def samples(piece: Piece) -> npt.NDArray[np.float32]:
    """Return a piece's audio as numbers from -1 to 1."""
    return np.frombuffer(piece.pcm, "<i2").astype(np.float32) / FULL_SCALE


def checked(segments: Sequence[TranscriptSegment], piece: Piece, language: str | None) -> list[TranscriptSegment]:
    """Return segments with times of the file, in order and inside the piece, and without numbers that JSON lacks."""
    found: list[TranscriptSegment] = []
    at = piece.start_seconds
    for segment in segments:
        text = segment.text.strip()
        if not text:
            continue
        start, end = _placed(segment.start_seconds, segment.end_seconds, piece, at)
        at = start
        words: list[WordTime] = []
        from_word = start
        for word in segment.words:
            word_start, word_end = _placed(word.start_seconds, word.end_seconds, piece, from_word)
            words.append(WordTime(word.text.strip(), word_start, word_end))
            from_word = word_start
        found.append(
            TranscriptSegment(
                start_seconds=start,
                end_seconds=end,
                text=text if language in WITHOUT_SPACES else f" {text}",
                words=words,
                tokens=segment.tokens,
                temperature=_finite(segment.temperature),
                avg_logprob=_finite(segment.avg_logprob),
                compression_ratio=_finite(segment.compression_ratio),
                no_speech_prob=_finite(segment.no_speech_prob),
            )
        )
    return found


def _placed(start: float, end: float, piece: Piece, earliest: float) -> tuple[float, float]:
    """Return a time of a piece as one of the file, not before `earliest`, which is a time of the piece."""
    last = piece.end_seconds
    begun = piece.start_of(start) if math.isfinite(start) else earliest
    ended = piece.end_of(end) if math.isfinite(end) else last
    begun = min(max(begun, earliest), last)
    return round(begun, 3), round(min(max(ended, begun), last), 3)


def _finite(number: float) -> float:
    return float(number) if math.isfinite(number) else 0.0
