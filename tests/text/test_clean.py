"""Cleaning of every text before an engine says it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.text.clean import clean, is_speakable

pytestmark = pytest.mark.everyday

ANYTHING = st.text(st.characters(exclude_categories=[]))
"""Half characters, controls and marks too."""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Hello, world.\n\tYes: 3.14!", "Hello, world.\n\tYes: 3.14!"),
        ("a\x00b\x07c\x1bd\x7fe\x9ff", "abcdef"),
        ("a\r\nb\rc\u2028d\u2029e\x0bf\x0cg\x85h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("half \ud83d a character \udc00", "half  a character "),
        ("zero\u200bwidth so\u00adft \ufeffmark \u2060join", "zerowidth soft mark join"),
        ("\u202eturned\u202c \u2066isolated\u2069 \u200eleft", "turned isolated left"),
        ("caf\u0065\u0301", "caf\u00e9"),
        ("می\u200cخواهم क\u094d\u200dष", "می\u200cخواهم क\u094d\u200dष"),  # noqa: RUF001
        ("\u00a0 \u3000", "\u00a0 \u3000"),
    ],
)
def test_text_is_cleaned(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(ANYTHING)
def test_clean_text_can_be_written_and_is_clean(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert "\x00" not in cleaned
    assert clean(cleaned) == cleaned


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_piles_of_marks_are_not_composed() -> None:
    pile = "\u0301\u0316" * 40
    assert clean(f"e\u0301 a{pile} e\u0301") == f"\u00e9 a{pile} \u00e9"


@pytest.mark.parametrize("text", ["a", "7", "好", "½", "٣", "%", "€", "&", "a...", "=", "क"])
def test_letters_digits_and_signs_with_names_can_be_said(text: str) -> None:
    assert is_speakable(text)


@pytest.mark.parametrize(
    "text", ["", " \n\t\u3000", "...", "?!", "—", "。", "***", '"', "🙂", "👩\u200d👧", "\u0301", "\x00"]
)
def test_blanks_punctuation_and_emoji_say_nothing(text: str) -> None:
    assert not is_speakable(text)
