"""In which script and language a text is."""
# ruff: noqa: RUF001  # letters of other scripts are the matter here

from __future__ import annotations

import pytest

from localapi.text.writing_systems import LATIN, language_of, main_script, runs, scripts_of_language

pytestmark = pytest.mark.everyday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world 5!", [("Latin", "Hello, world 5!")]),
        ("Hello Привет, мир. Ok", [("Latin", "Hello "), ("Cyrillic", "Привет, мир. "), ("Latin", "Ok")]),
        ("我喜欢 Python", [("Han", "我喜欢 "), ("Latin", "Python")]),
        ("日本語のテスト", [("Kana", "日本語のテスト")]),
        ("the angle \u03b1 is 5 \u03a9", [("Latin", "the angle \u03b1 is 5 \u03a9")]),
        ("中 means middle", [("Han", "中 "), ("Latin", "means middle")]),
        ("«Привет» he said", [("Cyrillic", "«Привет» "), ("Latin", "he said")]),
        ("한국어와 漢字", [("Hangul", "한국어와 "), ("Han", "漢字")]),
        ("5 + 5", [("", "5 + 5")]),
        ("…", [("", "…")]),
        ("ﾊﾛｰ Ｈｉ", [("Kana", "ﾊﾛｰ "), ("Latin", "Ｈｉ")]),
    ],
)
def test_a_text_is_cut_where_its_script_changes(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(run.script, run.text) for run in runs(text)] == expected


@pytest.mark.parametrize(
    ("text", "hint", "language"),
    [
        ("Привет", None, "ru"),
        ("Привіт, їжаче", None, "uk"),
        ("Привет", "bg", "bg"),
        ("Привет", "zh", "ru"),
        ("مرحبا", None, "ar"),
        ("سلام گربه", None, "fa"),
        ("یہ ٹھیک ہے", None, "ur"),
        ("你好", None, "zh"),
        ("你好", "yue", "yue"),
        ("こんにちは世界", None, "ja"),
        ("안녕", None, "ko"),
        ("Γειά σου", None, "el"),
        ("שלום", None, "he"),
        ("नमस्ते", None, "hi"),
        ("สวัสดี", None, "th"),
        ("გამარჯობა", None, "ka"),
        ("Hello", "de", None),
    ],
)
def test_the_letters_tell_the_language_and_a_hint_decides_between_several(
    text: str, hint: str | None, language: str | None
) -> None:
    assert language_of(text, main_script(runs(text)), hint) == language


def test_every_reader_reads_latin_and_its_own_script() -> None:
    assert scripts_of_language("en-US") == {LATIN}
    assert scripts_of_language("ru") == {LATIN, "Cyrillic"}
    assert scripts_of_language("zh_CN") == {LATIN, "Han"}
    assert scripts_of_language("ja") == {LATIN, "Han", "Kana"}
    assert scripts_of_language("cmn-Latn-pinyin") == {LATIN}
