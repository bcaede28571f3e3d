"""Times of words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.worker.tts.word_times import SpokenPiece, paired, said_words


def told(text: str, *pieces: tuple[int, float, float]) -> list[tuple[str, float, float]]:
    words = said_words(text, [SpokenPiece(*piece) for piece in pieces])
    return [(word.text, word.start_seconds, word.end_seconds) for word in words]


def test_each_piece_is_a_word() -> None:
    assert told("Hello, you!", (0, 0.1, 0.4), (7, 0.6, 0.9)) == [("Hello,", 0.1, 0.4), ("you!", 0.6, 0.9)]


def test_several_pieces_of_a_word_are_one() -> None:
    assert told("It is 42.", (0, 0, 0.1), (3, 0.1, 0.2), (6, 0.2, 0.5), (7, 0.5, 0.9))[2] == ("42.", 0.2, 0.9)


def test_words_that_are_said_as_one_share_the_time_by_their_letters() -> None:
    assert told("of the end", (0, 0.0, 0.5), (7, 0.5, 1.0)) == [
        ("of", 0.0, 0.2),
        ("the", 0.2, 0.5),
        ("end", 0.5, 1.0),
    ]


def test_words_before_the_first_piece_share_its_time() -> None:
    assert told("a bc", (2, 0.3, 0.6)) == [("a", 0.3, 0.4), ("bc", 0.4, 0.6)]


def test_signs_that_are_not_said_are_left_out() -> None:
    assert told("a — b", (0, 0, 0.1), (4, 0.1, 0.2)) == [("a", 0, 0.1), ("b", 0.1, 0.2)]


def test_an_emoji_that_is_said_is_a_word() -> None:
    assert told("hi 😀", (0, 0, 0.1), (3, 0.1, 0.8)) == [("hi", 0, 0.1), ("😀", 0.1, 0.8)]


def test_ideographs_are_words() -> None:
    assert [word for word, *_ in told("你好 world", (0, 0, 1), (1, 1, 2), (3, 2, 3))] == ["你", "好", "world"]


def test_nothing_said_has_no_words() -> None:
    assert told("Hello") == []


@given(st.text(), st.lists(st.tuples(st.integers(-1, 30), st.floats(0, 9), st.floats(0, 9))))
def test_any_pieces_give_words_of_the_text_in_its_order(text: str, pieces: list[tuple[int, float, float]]) -> None:
    rest = text
    for word, _, _ in told(text, *pieces):
        before, found, rest = rest.partition(word)
        assert found
        assert not any(map(str.isalnum, before)) or not pieces


@pytest.mark.parametrize(
    ("read", "said", "pairs"),
    [
        ("abc", "abc", "aa bb cc"),
        ("abc", "axc", "aa bx cc"),
        ("abc", "ac", "aa cc"),
        ("acd", "abcd", "aa cc dd"),
        ("abc", "", ""),
        ("", "abc", ""),
        ("abab", "ababababab", "aa bb aa bb"),
    ],
)
def test_readings_are_compared_sound_by_sound(read: str, said: str, pairs: str) -> None:
    assert " ".join(read[at] + said[among] for at, among in paired(read, said)) == pairs


def test_long_readings_stay_together_although_they_differ_now_and_then() -> None:
    read = "the quick brown fox jumps over the lazy dog".replace(" ", "") * 60
    said = read.replace("thel", "dhel")
    pairs = list(paired(read, said))
    assert pairs == [(at, at) for at in range(len(read))]
    shorter = list(paired(read, read.replace("thel", "tl")))
    assert sum(read[at] == read.replace("thel", "tl")[among] for at, among in shorter) > 0.95 * len(shorter)
