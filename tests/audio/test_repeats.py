"""A phrase said twice is said once; everything else stays as it is."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localapi.audio.repeats import repeated_prefix, trim
from tests.audio.sounds import pcm, samples, sine, speech

RATE = 24_000
T = np.arange(10 * RATE) / RATE


def noisy(sound: bytes, deviation: float) -> bytes:
    noise = np.random.default_rng(5).normal(0, deviation, len(sound) // 2)
    return (samples(sound) * 32767 + noise).round().clip(-32768, 32767).astype("<i2").tobytes()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), seconds=st.floats(1.2, 5), rest=st.floats(0, 4), rate=st.sampled_from([16_000, 24_000])
)
def test_a_phrase_said_twice_is_said_once(seed: int, seconds: float, rest: float, rate: int) -> None:
    phrase, rest_of_it = speech(seconds, rate, seed), speech(rest, rate, seed + 1)
    assert trim(phrase + phrase + rest_of_it, rate) == phrase + rest_of_it


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), seconds=st.floats(0, 8))
def test_speech_that_does_not_repeat_stays(seed: int, seconds: float) -> None:
    assert repeated_prefix(speech(seconds, RATE, seed), RATE) == 0


@pytest.mark.parametrize("deviation", [0.5, 2, 5])
def test_noise_as_of_numbers_does_not_hide_a_repeat(deviation: float) -> None:
    phrase = speech(1.5, RATE, 3)
    cut = repeated_prefix(phrase + noisy(phrase, deviation) + speech(2, RATE, 4), RATE)
    assert cut == len(phrase) // 2


def test_a_phrase_may_begin_and_end_in_silence() -> None:
    phrase = bytes(RATE) + speech(1, RATE, 8) + bytes(RATE // 2)
    assert trim(phrase + phrase + speech(1, RATE, 9), RATE) == phrase + speech(1, RATE, 9)


def test_saying_it_again_with_other_samples_is_speech() -> None:
    phrase = samples(speech(1, RATE, 3))
    rest = speech(1, RATE, 4)
    softer, shifted = pcm(phrase * 0.95), pcm(np.interp(np.arange(RATE) + 0.5, np.arange(RATE), phrase))
    for again in (softer, shifted, noisy(pcm(phrase), 300)):
        assert repeated_prefix(pcm(phrase) + again + rest, RATE) == 0


def test_a_repeat_that_is_not_at_the_beginning_stays() -> None:
    first, phrase = speech(0.7, RATE, 1), speech(1, RATE, 2)
    assert repeated_prefix(first + phrase + phrase, RATE) == 0


def test_a_short_repeat_is_speech() -> None:
    phrase, rest = speech(1.2, RATE, 3), speech(1, RATE, 2)
    assert repeated_prefix(phrase + phrase + rest, RATE, minimum_seconds=1.5) == 0
    assert repeated_prefix(phrase + phrase + rest, RATE, minimum_seconds=0.8) == len(phrase) // 2
    word = phrase[: round(0.39 * RATE) * 2]
    assert repeated_prefix(word + word + rest, RATE) == 0


def test_what_is_said_three_times_is_meant() -> None:
    phrase = speech(1, RATE, 2)
    assert repeated_prefix(phrase * 3 + speech(1, RATE, 3), RATE) == 0


NEVER = {
    "nothing": b"",
    "half a sample": b"\1",
    "one sample": b"\1\1",
    "silence": bytes(20 * RATE),
    "a constant": pcm(np.full_like(T, 0.4)),
    "a fade": pcm(T / 10),
    "noise": pcm(np.random.default_rng(2).normal(0, 0.1, len(T))),
    "faint noise": np.random.default_rng(2).integers(-1, 2, len(T)).astype("<i2").tobytes(),
    **{f"{frequency} Hz": sine(10, RATE, frequency) for frequency in (0.5, 3, 50, 100, 440, 441.3, 5000)},
    "a buzz": pcm((T * 100 % 1 - 0.5) * 0.5),
    "a buzz with a beat": pcm(np.sin(2 * np.pi * 2 * T) * np.sin(2 * np.pi * 200 * T) * 0.5),
    "a tone that fades in": pcm(np.sin(2 * np.pi * 220 * T) * T / 10),
    "a tone that glides": pcm(0.5 * np.sin(2 * np.pi * (100 * T + 5 * T**2))),
    "a square wave": pcm(np.sign(np.sin(2 * np.pi * T)) * 0.5),
    "a clock": pcm((np.arange(len(T)) % RATE < 20) * 0.9),
    "a hum before speech": sine(2, RATE, 120) + speech(3, RATE, 1),
    "full scale": b"\x00\x80" * RATE * 2,
}


@pytest.mark.parametrize("name", NEVER)
def test_this_never_loses_a_sample(name: str) -> None:
    assert trim(NEVER[name], RATE) == NEVER[name]


@pytest.mark.parametrize("sound", [speech(30, RATE), sine(30, RATE), speech(14, RATE) * 2 + speech(2, RATE, 1)])
def test_half_a_minute_takes_no_time(sound: bytes) -> None:
    fastest = 1.0
    for _ in range(3):
        begun = time.perf_counter()
        repeated_prefix(sound, RATE)
        fastest = min(fastest, time.perf_counter() - begun)
    assert fastest < 0.2
