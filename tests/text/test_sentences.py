"""Cuts in text before it is spoken."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.text import sentences as module
from localapi.text.clean import is_speakable
from localapi.text.sentences import Segment, sentences, shares
from tests.text.counting import HOSTILE, calls

LONG = "This sentence is long enough to stand alone, as its author wanted, and then it ends"
"""Eighty-odd characters: two of them are not put into one of the first segments."""


def texts(text: str, *, language: str | None = None, longest: int = 400) -> list[str]:
    return [segment.text for segment in sentences(text, language=language, longest=longest)]


@pytest.mark.parametrize("end", [".", "!", "?", "...", "?!", "!!", '."', ".”"])
def test_a_sentence_ends_with_its_mark(end: str) -> None:
    assert texts(f"{LONG}{end} {LONG}.") == [f"{LONG}{end}", f"{LONG}."]


@pytest.mark.parametrize(
    "inside",
    [
        "Dr. Smith went to Washington, D.C. at 3.14 p.m. with Mrs. Jones",
        "as J. R. Smith Jr. said on Jan. 5 in Fig. 3, e.g. to nobody, i.e. to no one",
        "the address https://example.com/a.b?c=d and the mail a.b@example.com",
        "version 3.11.7 costs $1,000.50 or 1.000,50 euro, he said",
        'he said "Stop. Now!" and went away',
        "well... maybe, or maybe not",
    ],
)
def test_a_point_inside_a_sentence_ends_nothing(inside: str) -> None:
    assert texts(f"{LONG}: {inside}. {LONG}.")[-1] == f"{LONG}."
    assert len(texts(f"so {inside} as we know.", language="en")) == 1


@pytest.mark.parametrize("language", [None, "zh", "zh-CN", "en"])
def test_chinese_sentences_need_no_blank(language: str | None) -> None:
    first, second, third = (
        "今天天气很好我们一起去公园散步吧。",
        "他问：“你们什么时候从学校回来呢？”",  # noqa: RUF001
        "价格是三点五元然后大家都走了！",  # noqa: RUF001
    )
    assert texts(first + second + third, language=language) == [first, second + third]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (
            "「はい。」と彼女は小さな声で静かに答えました。今日はとても良い天気ですね。",
            "「はい。」と彼女は小さな声で静かに答えました。",
        ),
        (
            "यह एक लंबा वाक्य है जो अकेला खड़ा रहता है। वह दूसरा वाक्य है जो उसके बाद आता है।",
            "यह एक लंबा वाक्य है जो अकेला खड़ा रहता है।",
        ),
        (
            "كيف حالك اليوم يا صديقي العزيز في المدينة؟ أنا بخير والحمد لله.",
            "كيف حالك اليوم يا صديقي العزيز في المدينة؟",
        ),
        ("Он пришёл домой очень поздно вечером. Потом он сразу лёг спать.", "Он пришёл домой очень поздно вечером."),
        ("我们今天用英语说再见。This is the second sentence of it. 第三句也在这里。", "我们今天用英语说再见。"),
    ],
)
def test_the_script_says_how_sentences_end(text: str, first: str) -> None:
    assert texts(text)[0] == first


def test_german_dates_stay_whole() -> None:
    text = "Am 1. Januar kam z.B. Dr. Müller aus der Stadt zu uns."
    assert texts(f"{text} {text}", language="de-DE") == [text, text]


def test_a_newline_ends_a_sentence() -> None:
    assert texts("A title\n\nA text\nand a line\r\nThe end") == ["A title", "A text", "and a line", "The end"]


def test_wrapped_prose_is_one_paragraph() -> None:
    text = f"{LONG[:60]}\n{LONG[60:]}."
    assert LONG[60].islower()
    assert texts(text) == [text]


def test_a_fragment_is_said_with_its_neighbour() -> None:
    assert texts(f"Hi. {LONG}. {LONG}. Yes.") == [f"Hi. {LONG}.", f"{LONG}. Yes."]
    assert texts("1. First of all. 2. And then.") == ["1. First of all. 2. And then."]


def test_what_says_nothing_is_said_with_its_neighbour() -> None:
    assert texts("...\n\nHello\n\n***\n\nYou\n---") == ["...\n\nHello\n\n***", "You\n---"]
    assert texts("... !!!\n***") == ["... !!!\n***"]


def test_segments_grow() -> None:
    text = "One short sentence stands here. " * 20
    assert [len(segment.text) for segment in sentences(text)] == [31, 95, 191, 191, 127]


def test_a_long_first_sentence_is_cut_after_a_clause() -> None:
    text = "The first words come, and then some more of them, and " + "more " * 30 + "follow. " + LONG
    assert texts(text)[0] == "The first words come, and then some more of them,"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("word word, word word word", ["word word,", "word word word"]),
        ("word word word word word", ["word word", "word word word"]),
        ("words/without/any/blank", ["words/without/", "any/blank"]),
        ("一二三四五六，七八九十一二三四五六", ["一二三四五六，", "七八九十一二三四五六"]),  # noqa: RUF001
        ("x" * 13 + "e\u0301" + "y" * 10, ["x" * 13, "e\u0301" + "y" * 10]),
        ("x" * 12 + "👩\u200d👧" + "y" * 5, ["x" * 12, "👩\u200d👧" + "y" * 5]),
        ("x" * 13 + "👍🏽" + "y" * 5, ["x" * 13, "👍🏽" + "y" * 5]),
    ],
)
def test_what_is_too_long_is_cut_where_it_hurts_least(text: str, cut: list[str]) -> None:
    assert texts(text, longest=14) == cut


def test_segments_know_their_place() -> None:
    assert sentences(" Hello.\n\n  World ") == [Segment("Hello.", 1, 7), Segment("World", 11, 16)]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u3000\u2028"])
def test_blank_text_has_no_segments(text: str) -> None:
    assert sentences(text) == []


def test_no_limit_below_one_character() -> None:
    with pytest.raises(ValueError, match="longest should be at least 1, not 0"):
        sentences("a", longest=0)


PIECES = [
    *"aA.1!?\"'()[]-:;, \n\r\t", *"\u201c\u201d\u2018\u2019\u00ab\u00bb\u300c\u300d\u3002\uff01\uff1f\u2026\uff0c",
    *"\u00a0\u2028\u0085\u3000\u200d\u0301\x00\x1c\ud800", "Dr.", "p.m.", "A\u00a0.", "e\u0301", "👩\u200d👧",
    "https://a.b/c?d", "3.14", "z.B.", "word ", "word. ", "重庆。", "x" * 30,
]  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=[]), max_size=5), max_size=60).map(
        "".join
    ),
    st.sampled_from([None, "en", "zh", "fr", "hi", "xx", ""]),
    st.sampled_from([1, 2, 7, 40, 400]),
)
def test_nothing_is_lost_but_white_space(text: str, language: str | None, longest: int) -> None:
    segments = sentences(text, language=language, longest=longest)
    at = 0
    for segment in segments:
        assert text[segment.start : segment.end] == segment.text == segment.text.strip() != ""
        assert text[at : segment.start].strip() == ""
        assert len(segment.text) <= longest
        at = segment.end
    assert text[at:].strip() == ""
    if longest > len(text) and is_speakable(text):
        assert all(is_speakable(segment.text) for segment in segments)


@given(st.lists(st.sampled_from(["a", "e\u0301\u0316", "👩\u200d👧", "👍🏽", "❤\ufe0f", "நி"]), max_size=60))
def test_no_visible_character_is_cut(characters: list[str]) -> None:
    ends = {0, *itertools.accumulate(map(len, characters))}
    for segment in sentences("".join(characters), longest=20):
        assert {segment.start, segment.end} <= ends


def test_a_panic_in_the_library_is_no_panic_here(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException): ...  # pyo3's name

    def panic(language: str, text: str) -> list[str]:
        raise PanicException

    monkeypatch.setattr(module.sentencex, "segment", panic)
    assert texts("One sentence. Another.") == ["One sentence. Another."]


def test_the_library_sees_a_bounded_piece_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time grows with the square of a run of quotation marks."""
    seen: list[int] = []
    segment = module.sentencex.segment

    def watched(language: str, text: str) -> list[str]:
        seen.append(len(text))
        return list(segment(language, text))

    monkeypatch.setattr(module.sentencex, "segment", watched)
    sentences("“" * 20_000)
    assert max(seen) <= 4096
    assert sum(seen) == 20_000


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    assert calls(sentences, piece * 1600) < 10 * calls(sentences, piece * 400) + 2000


def test_apart_leaves_every_sentence_by_itself() -> None:
    text = "Hi. I am here, and I am quite a long first sentence, which would otherwise be cut. You? 1. No... Yes!"
    assert [each.text for each in sentences(text, apart=True)] == [
        "Hi.",
        "I am here, and I am quite a long first sentence, which would otherwise be cut.",
        "You?",
        "1.",
        "No...",
        "Yes!",
    ]
    assert len(sentences(text)) < 4


def weight(text: str) -> int:
    return sum(3 if "\u3040" <= char <= "\ud7af" else 1 for char in text)


@pytest.mark.parametrize("text", ["many words and no mark between any of them " * 20, "没有标点的很长的句子" * 80])
@pytest.mark.parametrize("apart", [False, True])
def test_a_text_without_marks_begins_with_few_words_and_grows(text: str, apart: bool) -> None:
    weights = [weight(each.text) for each in sentences(text, apart=apart)]
    assert weights[0] <= 60
    assert all(after <= 2.1 * max(before, 60) for before, after in itertools.pairwise(weights[:4]))
    assert max(weights) <= 400
    assert len(weights) < 12


def test_words_without_marks_are_cut_between_them() -> None:
    text = "many words and no mark between any of them " * 20
    assert " ".join(texts(text)) == text.strip()


def test_one_word_without_an_end_is_not_cut_early() -> None:
    assert len(texts("x" * 300)) == 1


def test_what_ends_no_sentence_says_so() -> None:
    text = "word " * 300 + "end. Another one."
    assert [each.goes_on for each in sentences(text, apart=True)][-3:] == [True, False, False]
    assert not any(each.goes_on for each in sentences(f"{LONG}. {LONG}.", apart=True))


def test_sentences_that_are_said_together_share_the_time_by_their_letters() -> None:
    assert shares("Hi. Good bye. 你好。") == [("Hi.", 3 / 19), ("Good bye.", 9 / 19), ("你好。", 7 / 19)]
    assert shares("One.") == [("One.", 1)]
    [(sentence, share)] = shares("many words and no mark between any of them " * 8)
    assert (len(sentence), share) == (43 * 8 - 1, 1)
