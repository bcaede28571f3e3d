"""Remove the repetition of a first phrase that a model speaks twice: A A B becomes A B.

Some speech models on MLX repeat a phrase, exactly or nearly so. Audio that is only similar is kept: a word that a
person says twice, a tone, a beat. In doubt, nothing is cut. Workers use this module, which needs numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

MINIMUM_SECONDS = 0.4
"""Minimum duration of a phrase, without silence before it. Shorter repeats are speech: "no no", a stutter."""

DIFFERENCE = 1e-4
"""Maximum energy of the difference between phrase and repeat, relative to the phrase (-40 dB)."""

ONSET = 0.02
"""Level at which sound begins, relative to the loudest sample (-34 dB)."""

LANDMARKS = 24
"""Number of loud samples at the start that a repetition must contain again."""

LANDMARK_DIFFERENCE = 0.2
"""Maximum difference between a landmark and its repeat, relative to the RMS of the phrase; 20 times `DIFFERENCE`."""

MOST_LENGTHS = 64
"""Maximum candidate lengths. A sound with more of them repeats itself all the time."""

NEIGHBOURS = 3
"""Distance in samples below which candidates count as one length, because smooth sound changes little between samples.
"""

PERIODIC = 0.9
"""Autocorrelation above which a phrase is a tone, a buzz or a hum."""

PERIOD_SECONDS = 3
"""Duration of the part of a phrase that is searched for periods."""


def trim(pcm: bytes, sample_rate_hz: int, *, minimum_seconds: float = MINIMUM_SECONDS) -> bytes:
    """Return the audio without the repetition of its start, if there is one."""
    return pcm[2 * repeated_prefix(pcm, sample_rate_hz, minimum_seconds=minimum_seconds) :]


def repeated_prefix(pcm: bytes, sample_rate_hz: int, *, minimum_seconds: float = MINIMUM_SECONDS) -> int:
    """Return the length in samples of a phrase at the beginning of 16-bit mono PCM that is repeated at once, or 0.

    The phrase begins with the first sample, including silence, and the repeat begins where the phrase ends.
    """
    sound = np.frombuffer(pcm, "<i2", count=len(pcm) // 2).astype(np.float32)
    minimum = max(2, round(minimum_seconds * sample_rate_hz))
    loudness = np.abs(sound)
    loudest = loudness.max(initial=0)
    onset = int(np.argmax(loudness > ONSET * loudest)) if loudest > 0 else None
    if onset is None or len(sound) < 2 * (onset + minimum):
        return 0
    beginning = sound[onset : onset + minimum]
    tolerance = LANDMARK_DIFFERENCE * float(np.sqrt(np.mean(beginning**2))) + 1
    landmarks = onset + np.argsort(np.abs(beginning))[-LANDMARKS:]
    lengths = np.arange(onset + minimum, len(sound) // 2 + 1)
    for landmark in landmarks[::-1]:
        lengths = lengths[np.abs(sound[landmark + lengths] - sound[landmark]) <= tolerance]
    length = _first_repeat(sound, onset, minimum, lengths) if len(lengths) <= MOST_LENGTHS else None
    if length is None:
        return 0
    phrase, rest = sound[onset:length], sound[2 * length + onset : 3 * length]
    goes_on = len(rest) >= minimum and _difference(phrase[: len(rest)], rest) <= DIFFERENCE
    return 0 if goes_on or _is_periodic(phrase[: PERIOD_SECONDS * sample_rate_hz]) else length


def _first_repeat(sound: Samples, onset: int, minimum: int, lengths: NDArray[np.intp]) -> int | None:
    """Return the shortest of these lengths that is a repeat, or None."""
    beginning = sound[onset : onset + minimum]
    found: dict[int, float] = {}
    for length in map(int, lengths):
        if found and length > min(found) + NEIGHBOURS:
            break
        again = sound[onset + length : onset + length + minimum]
        if _difference(beginning, again) > 10 * DIFFERENCE:  # a quick check before the whole phrase
            continue
        difference = _difference(sound[:length], sound[length : 2 * length])
        if difference <= DIFFERENCE:
            found[length] = difference
    return min(found, key=found.__getitem__, default=None)


def _difference(phrase: Samples, other: Samples) -> float:
    """Return the relative energy of the difference, without rounding errors of 16 bits."""
    difference = np.maximum(np.abs(phrase - other) - 1, 0)
    return float(np.square(difference).sum() / max(np.square(phrase).sum(), 1))


def _is_periodic(phrase: Samples) -> bool:
    """Return True if a phrase resembles itself after a delay of up to half its length.

    The delay starts where the phrase no longer resembles itself; a hum for which that never happens is periodic, too.
    """
    size = 1 << (2 * len(phrase) - 1).bit_length()
    spectrum = np.fft.rfft(phrase, size)
    half = len(phrase) // 2
    products = np.fft.irfft(np.abs(spectrum) ** 2, size)[: half + 1]
    energy = np.concatenate([[0.0], np.cumsum(phrase.astype(np.float64) ** 2)])
    heads = energy[len(phrase) - np.arange(half + 1)]
    tails = energy[-1] - energy[: half + 1]
    likeness = products / np.sqrt(np.maximum(heads * tails, 1e-9))
    unlike = int(np.argmax(likeness < PERIODIC / 2))
    return bool(unlike == 0 or likeness[unlike:].max() >= PERIODIC)
