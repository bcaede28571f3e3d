"""Numbers of any kind, as a model may make them, to samples."""

from __future__ import annotations

import numpy as np
import pytest

from localapi.audio.levels import to_pcm16


def integers(data: bytes) -> list[int]:
    return np.frombuffer(data, "<i2").tolist()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_full_scale_is_full_scale(kind: type[np.floating]) -> None:
    assert integers(to_pcm16(np.array([0, 1, -1, 0.5], kind))) == [0, 32767, -32767, 16384]


def test_what_is_too_loud_is_cut_off_and_never_wraps_around() -> None:
    assert integers(to_pcm16(np.array([1.5, -7, 1e30, -1e30, np.inf, -np.inf]))) == [32767, -32767] * 3


def test_what_is_no_number_is_silence() -> None:
    assert integers(to_pcm16(np.array([np.nan, 0.25, -np.nan], np.float32))) == [0, 8192, 0]


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1), (1, 4, 1)])
def test_one_channel_in_any_shape(shape: tuple[int, ...]) -> None:
    assert integers(to_pcm16(np.full(shape, -0.5))) == [-16384] * 4


def test_nothing_is_nothing_and_one_is_one() -> None:
    assert to_pcm16(np.zeros(0, np.float32)) == b""
    assert to_pcm16(np.zeros((1, 0))) == b""
    assert integers(to_pcm16(np.array(1.0))) == [32767]


def test_samples_stay_as_they_are() -> None:
    assert integers(to_pcm16(np.array([-32768, 5, 32767], np.int16))) == [-32768, 5, 32767]
    assert integers(to_pcm16([0.5, -0.5])) == [16384, -16384]


def test_the_array_is_not_changed() -> None:
    array = np.array([2.0, np.nan])
    to_pcm16(array)
    assert array[0] == 2
    assert np.isnan(array[1])


@pytest.mark.parametrize("array", [np.zeros((2, 3)), np.zeros((3, 2, 1)), np.zeros(3, np.int32), np.zeros(2, complex)])
def test_other_shapes_and_types_are_an_error(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        to_pcm16(array)
