"""Split audio of any length at pauses into pieces that a model can process at once.

Parts without speech are removed, even within a piece: they take time, and models hallucinate words for them. A model
takes as long for a short piece as for a long one, so a piece is filled as far as possible. This module knows samples,
but neither files nor models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

SAMPLE_RATE_HZ: Final = 16_000
BLOCK_SAMPLES: Final = 512
"""Samples of a block: 32 ms, which is what Silero's detector processes at once."""
BLOCK_BYTES: Final = 2 * BLOCK_SAMPLES
BLOCK_SECONDS: Final = BLOCK_SAMPLES / SAMPLE_RATE_HZ

LONGEST_BLOCKS: Final = int(30.0 / BLOCK_SECONDS)
"""Maximum length of a piece: Whisper processes 30 s."""
FIRST_BLOCKS: Final = int(6.0 / BLOCK_SECONDS)
"""Length above which the first piece of a long file ends at the next pause, so that the first words come soon."""
LONG_SECONDS: Final = 600.0
"""Length of audio above which the time for an additional piece does not matter."""
PAUSE_BLOCKS: Final = int(0.4 / BLOCK_SECONDS)
LONG_PAUSE_BLOCKS: Final = int(20.0 / BLOCK_SECONDS)
"""Length of a pause that ends a piece of any length."""
MARGIN_BLOCKS: Final = int(0.3 / BLOCK_SECONDS)
"""Length of pause that is kept after speech and before it."""
MARGIN_SECONDS: Final = MARGIN_BLOCKS * BLOCK_SECONDS
SEARCHED_BLOCKS: Final = int(10.0 / BLOCK_SECONDS)
"""Length of the end of a full piece in which it is split: at the last pause, otherwise at the quietest place. This much
may be deferred, because together with what follows, it is shorter than a full piece."""
SPEECH: Final = 0.4
"""Probability above which a block counts as speech. Silence has 0.001."""

HEARD_BYTES: Final = 32 * BLOCK_BYTES
"""Audio that a detector processes at once: a second. Block by block, it takes several times as long."""

Detector = Callable[[bytes], Sequence[float]]
"""Function that returns the probability of speech in each block of audio."""


@dataclass(frozen=True)
class Gap:
    """Silence that was removed from a piece."""

    at_seconds: float
    """Place in the piece."""
    seconds: float


@dataclass(frozen=True)
class Piece:
    """Part of the audio."""

    start_seconds: float
    pcm: bytes
    """16-bit mono samples."""
    gaps: tuple[Gap, ...] = ()
    silence_seconds: float = 0.0
    """Length of the part at its end without speech."""
    deferrable_seconds: float = 0.0
    """Length of the part at its end that may be processed with the next piece instead."""

    @property
    def seconds(self) -> float:
        """Length of the audio to process."""
        return len(self.pcm) / 2 / SAMPLE_RATE_HZ

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + self.seconds + sum(gap.seconds for gap in self.gaps)

    def start_of(self, seconds: float) -> float:
        """Return the place in the whole audio of something that starts at a second of the piece.

        There is no speech close to a gap. What starts shortly before a gap was spoken after it.
        """
        at, left_out = seconds, 0.0
        for gap in self.gaps:
            if seconds >= gap.at_seconds - MARGIN_SECONDS:
                at, left_out = max(seconds, gap.at_seconds), left_out + gap.seconds
        return self.start_seconds + at + left_out

    def end_of(self, seconds: float) -> float:
        """Return the place of something that ends there. What ends shortly after a gap was spoken before it."""
        at, left_out = seconds, 0.0
        for gap in self.gaps:
            if seconds > gap.at_seconds + MARGIN_SECONDS:
                left_out += gap.seconds
            else:
                at = min(seconds, gap.at_seconds)
                break
        return self.start_seconds + at + left_out


class Cutter:
    """Splitter of one file's audio. It keeps at most two pieces."""

    def __init__(self, detector: Detector, *, keeps_all: bool = False) -> None:
        """Create a splitter. If `keeps_all`, parts without speech become pieces too."""
        self._detector = detector
        self._keeps_all = keeps_all
        self._rest = b""
        """Audio that does not fill a block yet."""
        self._pcm = bytearray()
        self._likely: list[float] = []
        """Probability of speech in each kept block."""
        self._numbers: list[int] = []
        """Places of these blocks in the whole audio."""
        self._latest: tuple[bytes, list[float], list[int]] = (b"", [], [])
        """Places of the blocks of the latest piece."""
        self._pause = 0
        """Number of kept blocks without speech at the end."""
        self._silence = 0
        """Number of blocks without speech at the end, including removed ones."""
        self._blocks = 0
        self._bytes = 0
        self.hurries = False
        """True if the next piece should come soon."""

    @property
    def seconds(self) -> float:
        """Length of the audio received so far."""
        return self._bytes / 2 / SAMPLE_RATE_HZ

    def feed(self, pcm: bytes) -> Iterator[Piece]:
        """Yield the complete pieces."""
        self._bytes += len(pcm)
        data = self._rest + pcm if self._rest else pcm
        whole = len(data) - len(data) % HEARD_BYTES
        self._rest = data[whole:]
        for at in range(0, whole, HEARD_BYTES):
            yield from self._complete(data[at : at + HEARD_BYTES])

    def _complete(self, pcm: bytes) -> Iterator[Piece]:
        """Yield the pieces that are complete with the next blocks."""
        blocks = len(pcm) // BLOCK_BYTES
        likely = self._detector(pcm) if pcm.strip(b"\0") else [0.0] * blocks  # a detector takes its time
        for at in range(blocks):
            piece = self._add(pcm[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES], likely[at])
            if piece is not None:
                yield piece

    def finish(self) -> Iterator[Piece]:
        """Yield the last piece, if it contains speech."""
        rest, self._rest = self._rest, b""
        missing = -len(rest) % BLOCK_BYTES
        if rest:
            yield from self._complete(rest + bytes(missing))
        if self._has_speech:
            silence = 0 if self._keeps_all else max(0, self._pause - MARGIN_BLOCKS)
            piece = self._taken(len(self._likely) - silence)
            # The last block was filled up with silence, which is not part of the file.
            missing = 0 if self._likely else missing
            yield replace(piece, pcm=piece.pcm[: len(piece.pcm) - missing])

    def defer(self, seconds: float) -> None:
        """Put the latest piece's audio from this second on before what follows it.

        A model may omit the last sentence of a piece, which must then be processed again. As a piece of its own, it
        would take as long as a whole one.
        """
        pcm, likely, numbers = self._latest
        first = int(seconds / BLOCK_SECONDS)
        self._pcm[:0] = pcm[first * BLOCK_BYTES :]
        self._likely[:0] = likely[first:]
        self._numbers[:0] = numbers[first:]
        self._pause = self._silence_before(len(self._likely))

    @property
    def _has_speech(self) -> bool:
        return self._pause < len(self._likely) or (self._keeps_all and bool(self._likely))

    def _add(self, block: bytes, likely: float) -> Piece | None:
        self._pcm += block
        self._likely.append(likely)
        self._numbers.append(self._blocks)
        self._blocks += 1
        is_silent = likely < SPEECH
        self._pause = self._pause + 1 if is_silent else 0
        self._silence = self._silence + 1 if is_silent else 0
        if not self._has_speech:
            self._drop(max(0, len(self._likely) - MARGIN_BLOCKS))
            return None
        if self._pause > 2 * MARGIN_BLOCKS and not self._keeps_all:
            self._leave_out(len(self._likely) - MARGIN_BLOCKS - 1)
        length = len(self._likely)
        is_long = self.hurries and length >= FIRST_BLOCKS and self._pause >= PAUSE_BLOCKS
        if is_long or (self._silence >= LONG_PAUSE_BLOCKS and not self._keeps_all):
            return self._taken(length - max(0, self._pause - MARGIN_BLOCKS))
        if length >= LONGEST_BLOCKS:
            piece = self._taken(self._best_cut())
            return replace(piece, deferrable_seconds=SEARCHED_BLOCKS * BLOCK_SECONDS)
        return None

    def _best_cut(self) -> int:
        """Return the block at which to split: in the middle of the last pause, or of the three least likely blocks."""
        first = len(self._likely) - SEARCHED_BLOCKS
        pause = 0
        for at in range(len(self._likely) - 1, first - 1, -1):
            pause = pause + 1 if self._likely[at] < SPEECH else 0
            if pause == PAUSE_BLOCKS:
                return at + PAUSE_BLOCKS // 2
        sums = np.convolve(self._likely[first:], np.ones(3), mode="valid")
        return first + int(np.argmin(sums)) + 1

    def _leave_out(self, index: int) -> None:
        """Remove a block of a pause, whose start and end are kept."""
        del self._pcm[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
        del self._likely[index]
        del self._numbers[index]
        self._pause -= 1

    def _taken(self, count: int) -> Piece:
        """Remove this many blocks from the start, as a piece."""
        numbers = self._numbers[:count]
        gaps = []
        for at, (before, after) in enumerate(pairwise(numbers), 1):
            if after > before + 1:
                gaps.append(Gap(at * BLOCK_SECONDS, (after - before - 1) * BLOCK_SECONDS))
        pcm = bytes(self._pcm[: count * BLOCK_BYTES])
        silence_seconds = self._silence_before(count) * BLOCK_SECONDS
        piece = Piece(numbers[0] * BLOCK_SECONDS, pcm, tuple(gaps), silence_seconds)
        self._latest = pcm, self._likely[:count], numbers
        self._drop(count)
        self.hurries = False
        return piece

    def _silence_before(self, count: int) -> int:
        """Return the number of blocks without speech at the end of this many."""
        spoken = (at for at in range(count, 0, -1) if self._likely[at - 1] >= SPEECH)
        return count - next(spoken, 0)

    def _drop(self, count: int) -> None:
        if count:
            del self._pcm[: count * BLOCK_BYTES]
            del self._likely[:count]
            del self._numbers[:count]
            self._pause = min(self._pause, len(self._likely))


def loudness(pcm: bytes) -> Sequence[float]:
    """Return the loudness of each block, in place of a detector: 0 for silence, 0.5 for quiet speech, 1 at most."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float32).reshape(-1, BLOCK_SAMPLES)
    levels: list[float] = np.minimum(1.0, np.sqrt(np.mean(samples * samples, axis=1)) / 600).tolist()
    return levels
