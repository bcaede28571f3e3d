"""Cuts in sound, with a detector that is told what is speech."""

from __future__ import annotations

import random

import pytest

from localapi.worker.protocol import TranscriptSegment, WordTime
from localapi.worker.stt.pieces import BLOCK_BYTES, BLOCK_SECONDS, LONGEST_BLOCKS, Cutter, Piece
from localapi.worker.stt.transcribing import checked

SPEECH, SILENCE = b"\x01", b"\x00"


def likely(pcm: bytes) -> list[float]:
    return [0.9 if pcm[at] else 0.0 for at in range(0, len(pcm), BLOCK_BYTES)]


def sound(*parts: tuple[bytes, float]) -> bytes:
    """Speech and silence of so many seconds each."""
    return b"".join(value * (round(seconds / BLOCK_SECONDS) * BLOCK_BYTES) for value, seconds in parts)


def cut(pcm: bytes, *, at_once: int = 4000, keeps_all: bool = False, hurries: bool = False) -> list[Piece]:
    cutter = Cutter(likely, keeps_all=keeps_all)
    cutter.hurries = hurries
    pieces = [piece for at in range(0, len(pcm), at_once) for piece in cutter.feed(pcm[at : at + at_once])]
    return [*pieces, *cutter.finish()]


def test_silence_alone_is_no_piece() -> None:
    assert cut(sound((SILENCE, 60))) == []
    assert cut(b"") == []


def test_a_piece_begins_and_ends_a_little_beside_speech() -> None:
    [piece] = cut(sound((SILENCE, 10), (SPEECH, 2), (SILENCE, 10)))
    assert piece.start_seconds == pytest.approx(9.7, abs=0.1)
    assert piece.end_seconds == pytest.approx(12.3, abs=0.1)


def test_the_first_piece_of_a_long_sound_is_shorter_than_those_after_it() -> None:
    pieces = cut(sound(*[(SPEECH, 3.0), (SILENCE, 0.5)] * 30), hurries=True)
    assert pieces[0].seconds == pytest.approx(7, abs=0.5)
    assert all(26 <= piece.seconds <= 30 for piece in pieces[1:-1])


def test_the_first_piece_of_other_sound_is_as_long_as_any() -> None:
    pieces = cut(sound(*[(SPEECH, 3.0), (SILENCE, 0.5)] * 30))
    assert all(26 <= piece.seconds <= 30 for piece in pieces[:-1])


def test_a_piece_tells_how_much_silence_ends_it() -> None:
    [piece] = cut(sound((SPEECH, 2), (SILENCE, 10)))
    assert piece.silence_seconds == pytest.approx(0.3, abs=0.05)


def test_the_end_of_a_piece_can_be_heard_with_the_next_one() -> None:
    pcm = sound(*[(SPEECH, 3.0), (SILENCE, 2.0)] * 30)
    cutter = Cutter(likely)
    heard_until = 0.0
    pieces = []
    for at in range(0, len(pcm), 4000):
        for piece in cutter.feed(pcm[at : at + 4000]):
            assert heard(pcm, piece) == piece.pcm
            assert len(piece.pcm) <= LONGEST_BLOCKS * BLOCK_BYTES
            assert piece.start_seconds == pytest.approx(heard_until, abs=2)
            kept = piece.seconds - min(4.0, piece.deferrable_seconds)
            heard_until = piece.end_of(kept)
            cutter.defer(kept)
            pieces.append(piece)
    [last] = cutter.finish()
    assert last.deferrable_seconds == 0
    assert last.start_seconds == pytest.approx(heard_until, abs=2)
    assert sum(piece.pcm.count(SPEECH) for piece in [*pieces, last]) > pcm.count(SPEECH)


def test_a_piece_that_is_full_ends_in_the_middle_of_its_last_pause() -> None:
    pieces = cut(sound(*[(SPEECH, 3.0), (SILENCE, 0.5)] * 30))
    for piece in pieces[:-1]:
        assert piece.pcm.endswith(SILENCE * 4 * BLOCK_BYTES)


def test_long_silence_within_a_piece_is_left_out_and_counted_in_its_times() -> None:
    [piece] = cut(sound((SILENCE, 5), (SPEECH, 2), (SILENCE, 10), (SPEECH, 2), (SILENCE, 4), (SPEECH, 1)))
    assert piece.seconds == pytest.approx(6.5, abs=0.2)
    assert (piece.start_seconds, piece.end_seconds) == pytest.approx((4.7, 24), abs=0.1)
    # In the piece, speech is at 0.3 to 2.3, 2.9 to 4.9 and from 5.5 on; the gaps are in the middle between.
    assert piece.start_of(0.3) == pytest.approx(5, abs=0.1)
    assert piece.end_of(2.3) == pytest.approx(7, abs=0.1)
    assert piece.start_of(2.9) == pytest.approx(17, abs=0.1)
    assert piece.end_of(4.9) == pytest.approx(19, abs=0.1)
    assert piece.start_of(5.5) == pytest.approx(23, abs=0.1)
    # Models end and begin segments somewhere in the silence between.
    assert piece.end_of(2.8) <= 7.4
    assert piece.start_of(2.4) >= 16.6
    assert piece.end_of(piece.seconds) == pytest.approx(piece.end_seconds)


def test_speech_without_a_pause_is_cut_at_its_quietest_place() -> None:
    pieces = cut(sound((SPEECH, 25), (SILENCE, 0.1), (SPEECH, 20)))
    assert pieces[0].end_seconds == pytest.approx(25.05, abs=0.1)
    assert pieces[1].start_seconds == pieces[0].end_seconds


def test_a_long_pause_ends_a_piece_of_any_length() -> None:
    assert len(cut(sound((SPEECH, 1), (SILENCE, 25), (SPEECH, 1)))) == 2


def test_everything_is_kept_if_it_is_asked_for() -> None:
    pcm = sound((SILENCE, 70))
    pieces = cut(pcm, keeps_all=True)
    assert b"".join(piece.pcm for piece in pieces) == pcm


def heard(pcm: bytes, piece: Piece) -> bytes:
    """What stands at a piece's places in the whole sound."""
    found, at, begun = b"", round(piece.start_seconds * 32_000), 0.0
    for place, left_out in [*((gap.at_seconds, gap.seconds) for gap in piece.gaps), (piece.seconds, 0.0)]:
        length = round((place - begun) * 32_000)
        found += pcm[at : at + length]
        at, begun = at + length + round(left_out * 32_000), place
    return found


@pytest.mark.parametrize("seed", range(8))
def test_pieces_are_short_and_in_order_and_hold_what_was_said_there(seed: int) -> None:
    choice = random.Random(seed)
    parts = [(choice.choice([SPEECH, SILENCE]), choice.uniform(0.05, 40)) for _ in range(8)]
    pcm = sound(*parts) + SPEECH * choice.choice([0, 2, 700])
    pieces = cut(pcm, at_once=choice.choice([701, 1024, 100_000]))
    assert pieces == cut(pcm, at_once=4096)
    at = 0.0
    for piece in pieces:
        assert piece.start_seconds >= at - 1e-9
        assert 0 < len(piece.pcm) <= LONGEST_BLOCKS * BLOCK_BYTES
        assert heard(pcm, piece) == piece.pcm
        at = piece.end_seconds
    assert sum(piece.pcm.count(SPEECH) for piece in pieces) == pcm.count(SPEECH)


def test_times_stay_inside_the_piece_in_order_and_finite() -> None:
    piece = Piece(100.0, bytes(32_000 * 10))
    nan, infinite = float("nan"), float("inf")
    wild = [
        TranscriptSegment(start_seconds=-5, end_seconds=3, text=" one", avg_logprob=nan, temperature=infinite),
        TranscriptSegment(start_seconds=2, end_seconds=1, text="two", words=[WordTime(" w", nan, infinite)]),
        TranscriptSegment(start_seconds=nan, end_seconds=99, text=" ", compression_ratio=nan),
        TranscriptSegment(start_seconds=1, end_seconds=nan, text="three", no_speech_prob=-infinite),
    ]
    found = checked(wild, piece, "en")
    assert [(each.text, each.start_seconds, each.end_seconds) for each in found] == [
        (" one", 100, 103), (" two", 102, 102), (" three", 102, 110),
    ]  # fmt: skip
    assert (found[0].avg_logprob, found[0].temperature, found[2].no_speech_prob) == (0, 0, 0)
    assert found[1].words == [WordTime("w", 102, 110)]
    assert [each.text for each in checked(wild[:1], piece, "ja")] == ["one"]
