"""Change the speed without changing the pitch, for engines that cannot change their speed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localapi.audio.ffmpeg import Filters

SLOWEST, FASTEST = 0.25, 4.0
"""Range of OpenAI's `speed`."""

TAIL_SECONDS = 1
"""Silence to append, because FFmpeg's filter drops up to two of its windows (each 40 to 85 ms of input)."""


class Tempo:
    """Converter of PCM to PCM of the same rate with 1 / speed of the duration, exact to the sample."""

    def __init__(self, sample_rate_hz: int, speed: float) -> None:
        """Create a converter. Raise ValueError for a speed outside of 0.25 to 4."""
        if not SLOWEST <= speed <= FASTEST:
            raise ValueError(f"a speed is between {SLOWEST} and {FASTEST}, not {speed}")
        from localapi.audio.ffmpeg import Filters  # noqa: PLC0415  # costly, and not always needed

        self._sample_rate_hz = sample_rate_hz
        self._speed = speed
        # Equal steps, each between 0.5 and 2: a single step skips samples above 2 and cannot go below 0.5.
        steps = math.ceil(abs(math.log2(speed)))
        step = ("atempo", f"{speed ** (1 / max(steps, 1)):.9f}")
        self._filters: Filters | None = Filters(sample_rate_hz, *[step] * steps)
        self._bytes_in = 0
        self._samples_out = 0

    def feed(self, pcm: bytes) -> bytes:
        """Add PCM, and return what is ready, maybe nothing. `pcm` may end within a sample.

        Raise ValueError after the end.
        """
        self._bytes_in += len(pcm)
        return self._taken(self._open().feed(pcm))

    def finish(self) -> bytes:
        """Return the rest. Raise ValueError after the end."""
        filters, self._filters = self._open(), None
        silence = bytes(self._bytes_in % 2 + 2 * TAIL_SECONDS * self._sample_rate_hz)
        return self._taken(filters.feed(silence) + filters.finish())

    def close(self) -> None:
        """Free all resources, finished or not."""
        self._filters = None

    def _open(self) -> Filters:
        if self._filters is None:
            raise ValueError("the sound has ended")
        return self._filters

    def _taken(self, pcm: bytes) -> bytes:
        """Return the audio available from the input so far."""
        due = round(self._bytes_in // 2 / self._speed) - self._samples_out
        taken = pcm[: 2 * due]
        self._samples_out += len(taken) // 2
        return taken
