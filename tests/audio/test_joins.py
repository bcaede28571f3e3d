"""Segments after each other, as one sound."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from localapi.audio.joins import Join
from tests.audio.sounds import cut, pcm, samples, speech

RATE = 24_000
CONSTANT = pcm(np.full(2400, 0.5))


def joined(join: Join, segments: list[bytes], sizes: list[int] | None = None) -> bytes:
    parts: list[bytes] = []
    for segment in segments:
        parts += map(join.feed, cut(segment, sizes or [4000]))
        parts.append(join.end_segment())
    return b"".join(parts)


def test_a_segment_that_begins_and_ends_in_silence_stays_as_it_is() -> None:
    sound = bytes(200) + speech(0.5, RATE) + bytes(200)
    assert joined(Join(RATE), [sound, sound]) == sound + sound


def test_edges_that_would_click_are_faded_and_nothing_else_changes() -> None:
    sound = samples(joined(Join(RATE, fade_seconds=0.005), [CONSTANT, CONSTANT]))
    assert len(sound) == 4800
    for edge in (0, 2400, 4800):
        assert np.abs(sound[max(0, edge - 1) : edge + 1]).max() < 0.001
    assert (np.abs(sound[120:2280] - 0.5) < 1e-4).all()
    assert np.abs(np.diff(sound)).max() < 0.5 * np.pi / 2 / 120 * 1.1


def test_silence_stands_between_segments_and_nowhere_else() -> None:
    sound = samples(joined(Join(RATE, silence_seconds=0.1), [CONSTANT] * 3))
    assert len(sound) == 3 * 2400 + 2 * 2400
    assert not sound[2400:4800].any()
    assert not sound[7200:9600].any()


def test_no_silence_stands_where_a_segment_goes_on() -> None:
    join = Join(RATE, silence_seconds=0.1)
    parts = [join.feed(CONSTANT), join.end_segment(silence=False), join.feed(CONSTANT), join.end_segment()]
    assert len(b"".join([*parts, join.feed(CONSTANT), join.end_segment()])) == 2 * (3 * 2400 + 2400)


def test_a_segment_without_sound_leaves_no_trace() -> None:
    segments = [b"", CONSTANT, b"", b"\x01", b"", CONSTANT, b""]
    assert joined(Join(RATE, silence_seconds=0.1), segments) == joined(
        Join(RATE, silence_seconds=0.1), [CONSTANT, CONSTANT]
    )


def test_only_a_fade_is_held_back() -> None:
    join = Join(RATE, fade_seconds=0.004)
    assert len(join.feed(CONSTANT)) == len(CONSTANT) - 2 * 96
    assert len(join.end_segment()) == 2 * 96


def test_segments_shorter_than_a_fade_keep_their_length() -> None:
    for length in (1, 2, 5, 95, 96, 97, 150):
        sound = samples(joined(Join(RATE), [CONSTANT[: 2 * length]]))
        assert len(sound) == length
        assert abs(sound[0]) < 0.001
        assert np.abs(sound).max() <= 0.5001


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=5), lengths=st.lists(st.integers(0, 900), max_size=5))
def test_the_sound_does_not_depend_on_where_it_is_cut(sizes: list[int], lengths: list[int]) -> None:
    segments = [CONSTANT[: 2 * length] for length in lengths]
    whole, pieces = Join(RATE, silence_seconds=0.01), Join(RATE, silence_seconds=0.01)
    assert joined(pieces, segments, sizes) == joined(whole, segments, [10_000])
