"""Markup is left out, prose is not."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.text.speakable import speakable
from tests.text.counting import HOSTILE, calls

PLAIN = [
    "5 * 3 * 2 = 30", "5*3*2=30", "2**3**4", "a*b and c*d", "a_b_c", "snake_case", "<3", "2 < 3 > 1", "C#", "#1 fan",
    "#hashtag", "1. January", "1986. A great year", "2) Second", "3.14", "AT&T and R&D;", "f[i](x)", "a[0]",
    "[Alice]: Hello.", "[Bob]: hi", "[citation needed]", "if a <b and c> d", "vector<int>", "list<String> of <T>",
    "    four blanks before", "$5 and $6", "$a_1 * b_2$", r"\frac{a}{b}", "~5 m", "a | b", "a@b.com", "Yes!", "(!)",
    "\u201cQuoted.\u201d \u2018So.\u2019", "今天天气很好。", "5 > 3", "example.com", "…", "F♯ minor", "© 2024 ™",
    "100 %", "it's",
]  # fmt: skip


@pytest.mark.parametrize("text", PLAIN)
def test_prose_that_looks_like_markup_stays(text: str) -> None:
    assert speakable(text) == text.strip()


@given(st.lists(st.text(st.characters(categories=["Ll", "Lu", "Lo", "Nd"]) | st.sampled_from(" ,.;:?!'()-%$"))))
def test_plain_prose_changes_in_white_space_only(words: list[str]) -> None:
    text = "x" + " ".join(words)
    said = speakable(text)
    assert said.split() == unicodedata.normalize("NFC", text).split()
    assert speakable(said) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# A title #\n\nText", "A title\n\nText"),
        ("Title\n=====\nText", "Title\n\nText"),
        ("**bold** *italic* __bold__ _italic_ ~~gone~~", "bold italic bold italic gone"),
        ("**S**calable **V**ector", "Scalable Vector"),
        ("- one\n* two\n\n1. three\n2. four", "one\n\ntwo\n\n1. three\n2. four"),
        ("- one\n  - deeper\n- two", "one\ndeeper\n\ntwo"),
        ("- [ ] to do\n- [x] done", "to do\ndone"),
        ("> quoted\n> **twice**\n\nafter", "quoted\ntwice\n\nafter"),
        ("before\n\n---\n\nafter\n\n* * *", "before\n\nafter"),
        ("Run `pip install x` now", "Run pip install x now"),
        ("Like this:\n```python\nprint(1)\n```\nDone.", "Like this:\n\nDone."),
        ("Like this:\n```python\nprint(1)", "Like this:"),
        ("| a | b |\n|---|---|\n| 1 | **2** |\n|   | 3 |\n\nafter", "a, b\n1, 2\n3\n\nafter"),
        ("[a *link*](https://x.y/z) and ![a cat](cat.png)", "a link and a cat"),
        ("[one][1] and [two]\n\n[1]: https://x.y\n[two]: /path 'title'", "one and two"),
        ("A fact.[^1]\n\n[^1]: The source.", "A fact.\n\nThe source."),
        ("See https://www.example.com/a/b?c=d#e.", "See example.com."),
        ("(https://example.com/x) <http://foo.org> www.bar.net/x!", "(example.com) foo.org bar.net!"),
        ("https://me:secret@example.com:8080/x", "example.com"),
        ("见https://example.com/a这里", "见example.com这里"),
        ("https:// is not all", "https:// is not all"),
        ("one<br>two <b>bold</b> <span class='x'>in</span>", "one\ntwo bold in"),
        ("<div>\n\n**Text**\n\n</div><!-- no -->", "Text"),
        ("a <script>alert(1)</script> b <style>x</style>c", "a  b c"),
        ("AT&amp;T &lt;3 &#8203;x", "AT&T <3 x"),
        (r"\*not bold\* \# no", "*not bold* # no"),
        ("Hi 😀, there 👩\u200d👧! Good 👍🏽\n✅ Done", "Hi, there! Good\nDone"),
        ("Great😀job ❤️ 🇩🇪 1️⃣ ✨", "Great job 1"),
        ("😀", ""),
        ("是**“重点”**内容，*好*的。**注意：**看", "是“重点”内容，好的。注意：看"),  # noqa: RUF001
        ("\x00# Ti\x1btle\r\n\r\nText\ud800", "Title\n\nText"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_markup_is_not_said(text: str, said: str) -> None:
    assert speakable(text) == said


@given(
    st.lists(
        st.sampled_from([*"ab *_`~[]()<>!#|\\&;-+.:/\n\t\"'", "```", "http://", "<b>", "&#0;", "\x00", "1. ", "😀"])
    )
)
def test_any_markup_becomes_text(pieces: list[str]) -> None:
    said = speakable("".join(pieces))
    assert "\x00" not in said
    assert "😀" not in said
    assert said == said.strip()


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_hostile_markup_takes_linear_time(piece: str) -> None:
    speakable("the parser is built at the first call")
    assert calls(speakable, piece * 1600) < 10 * calls(speakable, piece * 400) + 2000


def test_the_parser_is_imported_when_it_is_needed() -> None:
    program = """if True:
        import sys
        from localapi.text.script import script_of
        script_of("Hello.", lexicon={})
        sys.exit("markdown_it" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
