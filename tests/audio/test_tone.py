"""Echo's voice."""

from __future__ import annotations

import time

import numpy as np
import pytest

from localapi.audio.tone import tone
from tests.audio.sounds import samples


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("frequency", [1, 110, 440, 3999])
def test_it_is_the_sine_that_was_asked_for(rate: int, frequency: int) -> None:
    sound = samples(b"".join(tone(1.03, rate, frequency)))
    expected = 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(1.03 * rate)) / rate)
    fade = rate // 100
    assert len(sound) == len(expected)
    assert np.abs(sound - expected)[fade:-fade].max() < 1e-4
    assert sound[0] == sound[-1] == 0


@pytest.mark.parametrize("seconds", [0, 0.0001, 0.001, 0.05, 0.1, 0.105, 0.3])
def test_any_length_is_right_to_the_sample(seconds: float) -> None:
    sound = samples(b"".join(tone(seconds, 24_000)))
    assert len(sound) == round(seconds * 24_000)
    assert np.abs(np.diff(sound, prepend=0, append=0)).max(initial=0) < 0.05


def test_it_comes_in_chunks_of_a_tenth_of_a_second() -> None:
    assert [len(chunk) for chunk in tone(0.25, 24_000)] == [4800, 4800, 2400]


def test_an_hour_begins_at_once() -> None:
    begun = time.perf_counter()
    assert len(next(tone(3600, 24_000))) == 4800
    assert time.perf_counter() - begun < 0.5


@pytest.mark.parametrize("frequency", [0, -1, 4000, 12_000])
def test_a_frequency_that_the_rate_cannot_hold_is_an_error(frequency: int) -> None:
    with pytest.raises(ValueError, match="too low"):
        tone(1, 8_000, frequency)
