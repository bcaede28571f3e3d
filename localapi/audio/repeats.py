"""A first phrase that a model says twice: A A B becomes A B.

Some speech models on MLX do this, to the bit or nearly so. What only resembles itself stays: a person who says a word
twice, a tone, a beat. In doubt nothing is cut. Used by workers; needs numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

MINIMUM_SECONDS = 0.4
"""Of sound, without the silence before it. Shorter repeats are speech: "no no", a stutter, a rolled r."""

DIFFERENCE = 1e-4
"""The energy of the difference between the two, over that of the phrase (-40 dB)."""

ONSET = 0.02
"""Sound begins where a sample passes this part of the loudest (-34 dB)."""

LANDMARKS = 24
"""Loud samples of the phrase's beginning; a repeat has them all again, one length later."""

LANDMARK_DIFFERENCE = 0.2
"""Between a landmark and its repeat, over the phrase's effective value: twenty times what `DIFFERENCE` allows."""

MOST_LENGTHS = 64
"""Lengths that are looked at closely. A sound that has more of them repeats itself all the time."""

NEIGHBOURS = 3
"""Samples. Smooth sound is much like itself one sample later: of lengths this near the best is the true one."""

PERIODIC = 0.9
"""A phrase that is this much like itself shortly after is a tone, a buzz or a hum."""

PERIOD_SECONDS = 3
"""How much of a phrase is looked at for periods."""


def trim(pcm: bytes, sample_rate_hz: int, *, minimum_seconds: float = MINIMUM_SECONDS) -> bytes:
    """The sound without the repeat of its beginning, or as it is."""
    return pcm[2 * repeated_prefix(pcm, sample_rate_hz, minimum_seconds=minimum_seconds) :]


def repeated_prefix(pcm: bytes, sample_rate_hz: int, *, minimum_seconds: float = MINIMUM_SECONDS) -> int:
    """How many samples of 16-bit mono PCM at the beginning are said again at once; 0 where none are.

    The phrase begins with the sound's first sample, silence included, and the repeat begins where the phrase ends.
    """
    sound = np.frombuffer(pcm, "<i2", count=len(pcm) // 2).astype(np.float32)
    minimum = max(2, round(minimum_seconds * sample_rate_hz))
    onset = _onset(sound)
    if onset is None or len(sound) < 2 * (onset + minimum):
        return 0
    lengths = _lengths(sound, onset, minimum)
    length = _first_repeat(sound, onset, minimum, lengths) if len(lengths) <= MOST_LENGTHS else None
    if length is None:
        return 0
    phrase, rest = sound[onset:length], sound[2 * length + onset : 3 * length]
    goes_on = len(rest) >= minimum and _difference(phrase[: len(rest)], rest) <= DIFFERENCE
    return 0 if goes_on or _is_periodic(phrase[: PERIOD_SECONDS * sample_rate_hz]) else length


def _onset(sound: Samples) -> int | None:
    loudness = np.abs(sound)
    loudest = loudness.max(initial=0)
    return int(np.argmax(loudness > ONSET * loudest)) if loudest > 0 else None


def _lengths(sound: Samples, onset: int, minimum: int) -> NDArray[np.intp]:
    """How long the phrase can be: at each of these lengths every landmark is found again."""
    beginning = sound[onset : onset + minimum]
    tolerance = LANDMARK_DIFFERENCE * float(np.sqrt(np.mean(beginning**2))) + 1
    landmarks = onset + np.argsort(np.abs(beginning))[-LANDMARKS:]
    lengths = np.arange(onset + minimum, len(sound) // 2 + 1)
    for landmark in landmarks[::-1]:
        lengths = lengths[np.abs(sound[landmark + lengths] - sound[landmark]) <= tolerance]
    return lengths


def _first_repeat(sound: Samples, onset: int, minimum: int, lengths: NDArray[np.intp]) -> int | None:
    """The shortest of these lengths that is one."""
    beginning = sound[onset : onset + minimum]
    found: dict[int, float] = {}
    for length in map(int, lengths):
        if found and length > min(found) + NEIGHBOURS:
            break
        again = sound[onset + length : onset + length + minimum]
        if _difference(beginning, again) > 10 * DIFFERENCE:  # a glance, before the whole phrase
            continue
        difference = _difference(sound[:length], sound[length : 2 * length])
        if difference <= DIFFERENCE:
            found[length] = difference
    return min(found, key=found.__getitem__, default=None)


def _difference(phrase: Samples, other: Samples) -> float:
    """Energy over energy; rounding to 16 bits counts for nothing."""
    difference = np.maximum(np.abs(phrase - other) - 1, 0)
    return float(np.square(difference).sum() / max(np.square(phrase).sum(), 1))


def _is_periodic(phrase: Samples) -> bool:
    """Whether it is like itself after a delay of up to half its length.

    The delay begins where the phrase has become unlike itself; a hum that never does is periodic, too.
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
