"""Faster and slower, at the same pitch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localapi.audio.tempo import Tempo
from tests.audio.sounds import cut, samples, sine, speech

SPEEDS = [0.25, 0.3, 0.5, 0.8, 1.0, 1.25, 1.9, 2.0, 3.0, 4.0]


def stretched(sound: bytes, rate: int, speed: float, sizes: list[int]) -> bytes:
    tempo = Tempo(rate, speed)
    return b"".join([*map(tempo.feed, cut(sound, sizes)), tempo.finish()])


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("speed", SPEEDS)
def test_the_length_is_right_to_the_sample(speed: float, rate: int) -> None:
    for seconds in (0, 0.001, 0.03, 0.5, 2):
        sound = speech(seconds, rate)
        assert len(stretched(sound, rate, speed, [4000])) // 2 == round(len(sound) // 2 / speed)


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_pitch_stays(speed: float) -> None:
    sound = samples(stretched(sine(3, 24_000, 220), 24_000, speed, [4800]))
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert np.argmax(spectrum) * 24_000 / len(sound) == pytest.approx(220, abs=2)
    assert np.abs(sound[1000:-4000]).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("speed", SPEEDS)
def test_events_keep_their_place_and_the_last_is_there(speed: float) -> None:
    silence = bytes(24_000)
    sound = silence + sine(0.3, 24_000) + silence + sine(0.3, 24_000)
    loud = np.abs(samples(stretched(sound, 24_000, speed, [4800]))) > 0.1
    seconds = np.flatnonzero(loud) * speed / 24_000
    assert seconds[0] == pytest.approx(0.5, abs=0.1)
    assert seconds[-1] == pytest.approx(1.6, abs=0.1)
    assert 0.4 < np.mean(loud[round(1.3 / speed * 24_000) :]) <= 1


@settings(max_examples=15, deadline=None)
@given(speed=st.sampled_from(SPEEDS), sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=4))
def test_the_sound_does_not_depend_on_where_it_is_cut(speed: float, sizes: list[int]) -> None:
    sound = speech(0.6, 22_050)
    assert stretched(sound, 22_050, speed, sizes) == stretched(sound, 22_050, speed, [len(sound)])


def test_sound_comes_before_the_end() -> None:
    tempo = Tempo(24_000, 1.5)
    pieces = [tempo.feed(piece) for piece in cut(speech(2, 24_000), [4800])]
    assert any(pieces[:3])
    assert len(b"".join(pieces)) > 0.9 * 48_000 * 2 / 1.5


@pytest.mark.parametrize("speed", [0.2499, 4.01, 0, -1, float("nan"), float("inf")])
def test_other_speeds_are_an_error(speed: float) -> None:
    with pytest.raises(ValueError, match="between"):
        Tempo(24_000, speed)


def test_nothing_can_be_added_after_the_end() -> None:
    tempo = Tempo(24_000, 2)
    tempo.finish()
    tempo.close()
    tempo.close()
    with pytest.raises(ValueError, match="has ended"):
        tempo.feed(b"\0\0")
