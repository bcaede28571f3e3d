"""Sound for tests: replies decoded by somebody else's code, and what they hold."""

from __future__ import annotations

import io

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float64]
"""Mono, from -1 to 1."""


def decoded(data: bytes, format: str) -> tuple[Samples, int]:  # noqa: A002
    """The samples and the rate of a reply: by libsndfile, and by FFmpeg for AAC, which libsndfile has not."""
    if format == "pcm":
        return np.frombuffer(data, "<i2") / 32768, 24_000
    if format == "aac":
        with av.open(io.BytesIO(data), format="aac") as file:
            frames = [frame.to_ndarray().mean(axis=0) for frame in file.decode(audio=0)]
            return np.concatenate(frames).astype(np.float64), file.streams.audio[0].rate
    samples, rate = soundfile.read(io.BytesIO(data), always_2d=True)
    return samples.mean(axis=1), rate


def seconds(data: bytes, format: str) -> float:  # noqa: A002
    samples, rate = decoded(data, format)
    return len(samples) / rate


def pitch_hz(samples: Samples, rate: int) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))
