"""Generate a tone, for the backend echo."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator

AMPLITUDE = 0.3 * 32767
CHUNKS_PER_SECOND = 10
FADES_PER_SECOND = 100
"""Inverse of the fade of 10 ms at both ends, which avoids clicks."""


def tone(seconds: float, sample_rate_hz: int, frequency_hz: int = 440) -> Iterator[bytes]:
    """Yield a sine as 16-bit mono PCM, in chunks of 100 ms.

    Raise ValueError if the rate is too low for the frequency.
    """
    if not 0 < 2 * frequency_hz < sample_rate_hz:
        raise ValueError(f"{sample_rate_hz} Hz is too low for a tone of {frequency_hz} Hz")
    length = round(seconds * sample_rate_hz)
    chunk = max(1, sample_rate_hz // CHUNKS_PER_SECOND)
    fade = min(sample_rate_hz // FADES_PER_SECOND, length // 2)
    return _chunks(_wave(sample_rate_hz, frequency_hz, chunk), length, chunk, fade)


def _wave(sample_rate_hz: int, frequency_hz: int, chunk: int) -> tuple[array[int], int]:
    """Return whole periods followed by a chunk, so that a chunk can begin at any of their samples; and their length."""
    periods = sample_rate_hz // math.gcd(sample_rate_hz, frequency_hz)
    turn = math.tau * frequency_hz / sample_rate_hz
    once = array("h", [round(AMPLITUDE * math.sin(turn * i)) for i in range(periods)])
    return once * (1 + -(-chunk // periods)), periods


def _chunks(wave: tuple[array[int], int], length: int, chunk: int, fade: int) -> Iterator[bytes]:
    samples, periods = wave
    for start in range(0, length, chunk):
        end = min(start + chunk, length)
        at = start % periods
        piece = samples[at : at + end - start]
        for i in (*range(start, min(fade, end)), *range(max(start, length - fade), end)):
            piece[i - start] = round(piece[i - start] * min(i, length - 1 - i) / fade)
        yield piece.tobytes()
