"""Subtitles from timed text."""

from __future__ import annotations

from localapi.audio.languages import language_code, language_name
from localapi.text.subtitles import Caption, srt, vtt

CAPTIONS = [Caption(0, 1.5, " One & <two>."), Caption(3599.9996, 36_000.25, "a\n\n b --> c")]


def test_subrip_counts_and_has_commas() -> None:
    assert srt(CAPTIONS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne & <two>.\n\n2\n01:00:00,000 --> 10:00:00,250\na\nb → c\n"
    )


def test_webvtt_escapes_its_marks() -> None:
    assert vtt(CAPTIONS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nOne &amp; &lt;two>.\n\n01:00:00.000 --> 10:00:00.250\na\nb → c\n"
    )


def test_nothing_said_is_an_empty_file_of_its_kind() -> None:
    assert (srt([]), vtt([])) == ("", "WEBVTT\n")


def test_languages_have_codes_and_names() -> None:
    assert [language_code(each) for each in ("de", "pt-BR", "zh_TW", "Haitian Creole", "tlh")] == [
        "de", "pt", "zh", "ht", "tlh",
    ]  # fmt: skip
    assert [language_name(each) for each in ("ht", "yue", "tlh", None)] == [
        "haitian creole", "cantonese", "tlh", "unknown",
    ]  # fmt: skip
