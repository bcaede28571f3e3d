"""Replacements of words, and the limits of words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.text.lexicon import BadLexicon, Lexicon, Substitution, read_lexicon
from tests.text.counting import HOSTILE, calls

LEXICON = Lexicon(
    {
        "GIF": "jif",
        "sql": "sequel",
        "SQL Server": "the server",
        "C++": "C plus plus",
        "C": "see",
        "e.g.": "for example",
        "read": "red",
        "重庆": "崇庆",
        "庆": "qing",
        "New York": "the city",
        "don": "dawn",
        "é": "accent",
        "क": "ka",
        ".NET": "dot net",
    }
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A GIF, a gif and GIFs.", "A jif, a gif and GIFs."),
        ("SQL, sql, Sql, MySQL, sql_x, sql2", "sequel, sequel, sequel, MySQL, sql_x, sql2"),
        ("SQL Server", "the server"),
        ("C++ or C or C# (C)", "C plus plus or see or see# (see)"),
        ("e.g. this, E.G. that", "for example this, for example that"),
        ("reading, reread, read-only", "reading, reread, red-only"),
        ("GIF's don't", "jif's dawn't"),
        ("我在重庆吃饭，庆祝", "我在崇庆吃饭，qing祝"),  # noqa: RUF001
        ("这个GIF图", "这个jif图"),
        ("é e\u0301 É", "accent e\u0301 accent"),
        ("क कि", "ka कि"),
        ("in ASP.NET and .NET", "in ASPdot net and dot net"),
        ("New York", "the city"),
        ("", ""),
    ],
)
def test_words_are_said_as_the_lexicon_has_them(text: str, said: str) -> None:
    assert LEXICON.apply(text) == said


def test_a_replacement_is_not_replaced() -> None:
    assert Lexicon({"a": "b", "b": "c", "b c": "d"}).apply("a b c") == "b d"


def test_a_dry_run_tells_what_would_be_said() -> None:
    assert LEXICON.applied("My GIF, 重庆") == [Substitution(3, 6, "jif"), Substitution(8, 10, "崇庆")]


def test_composed_and_decomposed_keys_are_the_same() -> None:
    assert Lexicon({"cafe\u0301": "coffee"}).apply("caf\u00e9") == "coffee"


def test_letters_that_grow_in_lower_case_keep_their_places() -> None:
    assert Lexicon({"sql": "sequel"}).applied("İİ SQL") == [Substitution(3, 6, "sequel")]


@given(st.text(), st.dictionaries(st.text(min_size=1).filter(str.strip), st.text(), max_size=5))
def test_a_dry_run_agrees_with_what_is_said(text: str, entries: dict[str, str]) -> None:
    lexicon = Lexicon(entries)
    said, at = "", 0
    for found in lexicon.applied(text):
        assert at <= found.start < found.end <= len(text)
        said += text[at : found.start] + found.said
        at = found.end
    assert lexicon.apply(text) == said + text[at:]


@given(st.text())
def test_an_empty_lexicon_changes_nothing(text: str) -> None:
    assert Lexicon({}).apply(text) == text


@pytest.mark.parametrize("piece", [*HOSTILE, "C+", "SQL ", "e.g", "重庆"], ids=ascii)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    assert calls(LEXICON.apply, piece * 1600) < 10 * calls(LEXICON.apply, piece * 400) + 2000


def test_more_entries_take_no_more_time() -> None:
    large = Lexicon({f"word{number:05}": "x" for number in range(10_000)})
    small = Lexicon({"word00000": "x"})
    text = "word word00007 words " * 50
    assert calls(large.apply, text) <= 2 * calls(small.apply, text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "words.txt"


def test_a_file_has_an_entry_on_each_line(file: Path) -> None:
    file.write_bytes("\ufeff# Words\r\n\nGIF: jif\r\n  C++:  C plus plus \n3:1: three to one\nC#:\tC sharp\n".encode())
    lexicon = read_lexicon(file)
    assert len(lexicon) == 4
    assert lexicon.apply("GIF C++ 3:1 C#") == "jif C plus plus three to one C sharp"


def test_an_empty_file_is_an_empty_lexicon(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert len(read_lexicon(file)) == 0


def test_each_problem_has_the_number_of_its_line(file: Path) -> None:
    file.write_text("GIF: jif\nno entry\n: nothing\nNIC:\nGIF: gif\n")
    with pytest.raises(BadLexicon) as caught:
        read_lexicon(file)
    shape = "should be a word, a colon, a space and how to say it, as in `GIF: jif`"
    assert str(caught.value).splitlines() == [
        f"{file}:2: {shape}",
        f"{file}:3: {shape}",
        f"{file}:4: {shape}",
        f"{file}:5: 'GIF' is already on line 1",
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: b\n\xff: c\n", ":2: is not UTF-8 text; save the file as UTF-8"),
        (b"#" * (4 * 1024 * 1024 + 1), ": is larger than 4 MiB; is this the right file?"),
    ],
)
def test_a_file_that_is_no_text_is_refused(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    with pytest.raises(BadLexicon) as caught:
        read_lexicon(file)
    assert str(caught.value) == f"{file}{message}"


@pytest.mark.parametrize(("name", "reason"), [("missing", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(BadLexicon, match=f"cannot be read: {reason}"):
        read_lexicon(tmp_path / name)


def test_an_entry_without_a_word_is_refused() -> None:
    with pytest.raises(BadLexicon, match="an entry has no word"):
        Lexicon({" ": "x"})
