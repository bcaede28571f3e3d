"""Join the segments of an utterance without clicks."""

from __future__ import annotations

import math
from array import array

FADE_SECONDS = 0.004
CLICK = 64
"""Step from or to silence (-54 dB) above which a click is audible."""


class Join:
    """Join segments of 16-bit mono PCM, with some silence between them.

    Edges that would click are faded, including the very first and last; nothing else changes. A segment ends with
    `end_segment`, and its last `fade_seconds` are held back until then. A segment without samples is ignored.
    """

    def __init__(
        self, sample_rate_hz: int, *, silence_seconds: float = 0.0, fade_seconds: float = FADE_SECONDS
    ) -> None:
        self._sample_rate_hz = sample_rate_hz
        length = max(1, round(fade_seconds * sample_rate_hz))
        self._ramp = [0.5 - 0.5 * math.cos(math.pi * i / length) for i in range(length)]
        """Gain of each sample, counted from a faded edge."""
        self._silence = bytes(2 * round(silence_seconds * sample_rate_hz))
        self._silence_next: bytes | None = None
        self._silence_due = False
        self._half = b""
        """First byte of an incomplete sample."""
        self._held = array("h")
        self._begun = 0
        """Number of samples of this segment that were already returned."""
        self._fades_in = False

    def feed(self, pcm: bytes) -> bytes:
        """Add PCM, and return what is ready of this segment, maybe nothing. `pcm` may end within a sample."""
        data = self._half + pcm
        whole = len(data) & ~1
        self._half = data[whole:]
        samples = self._held + array("h", data[:whole])
        ready = max(0, len(samples) - len(self._ramp))
        self._held = samples[ready:]
        return self._gone(samples[:ready])

    def end_segment(self, *, silence: bool = True) -> bytes:
        """Return the rest of this segment. The next one begins after some silence, unless `silence` is False."""
        samples, self._held = self._held, array("h")
        if samples and abs(samples[-1]) > CLICK:
            for i, gain in zip(range(len(samples) - 1, -1, -1), self._ramp, strict=False):
                samples[i] = round(samples[i] * gain)
        last = self._gone(samples)
        if self._begun:
            self._silence_due = silence
        self._half, self._begun, self._fades_in = b"", 0, False
        return last

    def pause(self, seconds: float) -> None:
        """Put this silence before the next PCM, instead of the default."""
        self._silence_next = bytes(2 * round(seconds * self._sample_rate_hz))

    def _gone(self, samples: array[int]) -> bytes:
        """Return the samples with the silence and the fade before them."""
        if not samples:
            return b""
        silence = b""
        if self._begun == 0:
            self._fades_in = abs(samples[0]) > CLICK
            silence = self._silence if self._silence_due else b""
            if self._silence_next is not None:
                silence, self._silence_next = self._silence_next, None
        if self._fades_in:
            for i, gain in enumerate(self._ramp[self._begun : self._begun + len(samples)]):
                samples[i] = round(samples[i] * gain)
        self._begun += len(samples)
        return silence + samples.tobytes()
