"""Sounds to test with, as 16-bit mono PCM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pcm(samples: NDArray[np.floating]) -> bytes:
    """Samples from -1 to 1."""
    scaled: NDArray[np.floating] = np.rint(np.clip(samples, -1, 1) * 32767)
    return scaled.astype("<i2").tobytes()


def samples(sound: bytes) -> NDArray[np.float64]:
    return np.frombuffer(sound, "<i2").astype(np.float64) / 32767


def sine(seconds: float, rate: int, frequency: float = 440, amplitude: float = 0.5) -> bytes:
    t = np.arange(round(seconds * rate)) / rate
    return pcm(amplitude * np.sin(2 * np.pi * frequency * t))


def speech(seconds: float, rate: int, seed: int = 0) -> bytes:
    """Like speech in what matters: voiced syllables whose pitch glides, hisses and pauses, no two alike."""
    random = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = [np.zeros(0)]
    while sum(map(len, parts)) < seconds * rate:
        length = round(random.uniform(0.08, 0.3) * rate)
        shape = np.hanning(length) * random.uniform(0.2, 0.8)
        kind = random.random() if len(parts) > 1 else 0  # begins with a vowel
        if kind < 0.65:
            pitch = random.uniform(90, 220) * np.linspace(1, random.uniform(0.8, 1.25), length)
            phase = 2 * np.pi * np.cumsum(pitch) / rate
            weights = random.uniform(0.1, 1, 12) / np.arange(1, 13)
            voice = sum(w * np.sin(k * phase + random.uniform(0, 6)) for k, w in enumerate(weights, 1))
            parts.append(shape * (voice / weights.sum() + 0.01 * random.standard_normal(length)))
        elif kind < 0.85:
            parts.append(shape * 0.2 * random.standard_normal(length).clip(-3, 3))
        else:
            parts.append(0.0005 * random.standard_normal(length))
    return pcm(np.concatenate(parts)[: round(seconds * rate)])


def cut(sound: bytes, sizes: list[int]) -> list[bytes]:
    """The sound in pieces of these sizes in bytes, over and over."""
    pieces = []
    at = turn = 0
    while at < len(sound):
        size = sizes[turn % len(sizes)]
        pieces.append(sound[at : at + size])
        at += size
        turn += 1
    return pieces
