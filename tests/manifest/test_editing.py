"""An entry goes into a manifest's text and out of it again, and nothing else changes."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from localapi.errors import CannotEdit, ManifestError
from localapi.manifest.editing import said, with_entry, without_entry
from localapi.manifest.text import Text

pytestmark = pytest.mark.everyday

ROOT = Path(__file__).parents[2]
OPTIONS = {"backend": "mlx-lm", "path": "me/new", "aliases": ["a: b", "no"], "defaults": {"temperature": 0.5}}


def add(text: str, section: str = "chat", name: str = "new") -> str:
    return with_entry(Text(Path("models.yaml"), text, ""), section, name, OPTIONS)


def remove(text: str, name: str, section: str = "chat") -> str:
    return without_entry(Text(Path("models.yaml"), text, ""), section, name)


def changed(before: str, after: str) -> list[str]:
    """Lines that an edit took out (-) or put in (+), with their line ends."""
    lines = difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True))
    return [line for line in lines if line[0] in "+-"]


def test_an_entry_follows_the_last_one_and_looks_like_it() -> None:
    before = "chat:\n    a:   # mine\n          backend:  echo\n          # path: x\n\n    # b:\n"
    assert add(before) == before.replace(
        "          # path: x\n",
        "          # path: x\n    new:\n          backend: mlx-lm\n          path: me/new\n"
        '          aliases: ["a: b", "no"]\n          defaults: {temperature: 0.5}\n',
    )


def test_entries_that_stand_apart_get_one_that_stands_apart() -> None:
    before = "chat:\n  a: {backend: echo}\n\n  # of b\n  b:\n    backend: echo\nspeech: {}\n"
    after = add(before)
    assert "    backend: echo\n\n  new:\n" in after
    assert remove(after, "new") == before


def test_an_entry_takes_its_own_comments_along_and_no_other() -> None:
    text = "# all\nchat:\n  # of a\n  a:\n    backend: echo  # too\n    # path: x\n  # of b\n  b: {backend: echo}\n"
    assert remove(text, "a") == "# all\nchat:\n  # of b\n  b: {backend: echo}\n"
    assert remove(text, "b") == text.partition("  # of b\n")[0]


def test_a_text_that_keeps_its_blank_lines_gets_none_of_those_that_follow_the_removed() -> None:
    text = "speech:\n  v:\n    description: |+\n      kept\n\nchat:\n  a: {backend: echo}\n\n\n"
    assert remove(text, "a") == text.partition("chat:")[0]


def test_the_last_entry_takes_a_bare_section_along() -> None:
    text = "speech:\n  v: {backend: echo}\n\nchat:\n  a: {backend: echo}\n"
    assert remove(text, "a") == "speech:\n  v: {backend: echo}\n"
    commented = text.replace("chat:", "chat: # mine")
    assert remove(commented, "a") == "speech:\n  v: {backend: echo}\n\nchat: # mine\n"
    assert remove("chat:\n  a: {backend: echo}\n", "a") == "chat:\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("chat: {a: {backend: echo}}  # c", "chat: {a: {backend: echo}, new: "),
        ("chat: {}", "chat: {new: "),
        ("{}", "{chat: {new: "),
        ("chat: ~  # none", "chat: {new: "),
        ("chat: {\n  a: {backend: echo}, # one\n}\n", "chat: {\n  a: {backend: echo}, new: "),
    ],
)
def test_brackets_stay_brackets(before: str, after: str) -> None:
    assert add(before).startswith(after)


@pytest.mark.parametrize("text", ["", "# only words\n", "# only words", "\ufeff# x"])
def test_a_file_of_comments_gets_a_section(text: str) -> None:
    after = add(text.removeprefix("\ufeff"))
    assert after.startswith(text.removeprefix("\ufeff"))
    assert said(Text(Path("x"), after, ""))["chat"]["new"] == OPTIONS


def test_the_shipped_manifest_changes_by_the_entry_alone() -> None:
    before = (ROOT / "models.yaml").read_text()
    after = add(before)
    assert all(line.startswith("+ ") for line in changed(before, after))
    assert len(changed(before, after)) == 6
    assert remove(after, "new") == before


def test_what_only_a_person_can_edit_is_refused() -> None:
    with pytest.raises(CannotEdit, match="alias"):
        remove("base: &b\n  a: {backend: echo}\nchat:\n  <<: *b\n", "a")
    with pytest.raises(CannotEdit, match="the section chat is an alias"):
        add("speech: &s {v: {backend: echo}}\nchat: *s\n")
    for section in ("foo", "[a]"):
        with pytest.raises(CannotEdit, match="the section chat should map ids to models"):
            add(f"chat: {section}\n")
        with pytest.raises(CannotEdit, match="the section chat should map ids to models"):
            remove(f"chat: {section}\n", "a")
    with pytest.raises(ManifestError, match="no anchor &x before this alias"):
        remove("chat:\n  a: &x {backend: echo}\n  b: *x\n", "a")
    with pytest.raises(CannotEdit, match=r"already has an entry chat\.a"):
        add("chat: {a: {backend: echo}}", name="a")


# Whatever a manifest looks like

comments = st.sampled_from(["", "", "", "\n", "# a word\n", "  # in\n", "      # deep\n", "\n# a: {b: c}\n\n", "\t\n"])
ENDS = ["", " ", "  # said: {so}"]


@st.composite
def entries(draw: st.DrawFn, name: str, indent: int) -> str:
    """One entry of a block, in any of the ways in which people write them."""
    pad, inner = " " * indent, " " * (indent + draw(st.integers(1, 5)))
    end = draw(st.sampled_from(ENDS)) + "\n"
    written = draw(
        st.sampled_from(
            [
                f"{pad}{name}: {{backend: echo}}{end}",
                f"{pad}{name}: {{backend: echo,{end}{inner} aliases: [{name}-x,{end}{inner} '{name} y']}}\n",
                f"{pad}{name}:{end}{inner}backend: echo{end}",
                f"{pad}? {name}\n{pad}: backend: echo\n",
                f'{pad}"{name}" :{end}\n{inner}backend: "echo"{end}{inner}aliases:\n{inner}- {name}-x{end}\n',
                f"{pad}{name}:{end}{inner}backend: echo\n{inner}description: >-\n{inner}  folded\n\n{inner}  text\n",
                f"{pad}{name}:{end}{inner}backend: echo\n{inner}description: |+\n{inner}  kept\n\n",
                f"{pad}{name}: &anchor-{name}{end}{inner}backend: echo\n{inner}# description: x\n",
            ]
        )
    )
    return draw(comments) + written + draw(comments)


@st.composite
def sections(draw: st.DrawFn, name: str, least: int) -> str:
    ids = draw(st.lists(st.sampled_from(["a", "b-1", "c.d", "e"]), unique=True, min_size=least, max_size=3))
    ids = [f"{name[0]}-{each}" for each in ids]
    indent = draw(st.integers(1, 6))
    if not ids:
        return draw(st.sampled_from([f"{name}: {{}}", f"{name}: {{ }}  # none"])) + "\n"
    if draw(st.integers(0, 4)) == 0:
        items = draw(st.sampled_from([", ", ",\n   ", ", # and\n   "])).join(
            f"{each}: {{backend: echo}}" for each in ids
        )
        return f"{name}: {{{items}{draw(st.sampled_from(['', ' ', ', ']))}}}{draw(st.sampled_from(ENDS))}\n"
    return f"{name}:{draw(st.sampled_from(ENDS))}\n" + "".join(draw(entries(each, indent)) for each in ids)


@st.composite
def manifests(draw: st.DrawFn, least: int = 0) -> str:
    """With at least so many entries in each section that there is."""
    names = draw(st.permutations(["chat", "speech", "server", "echo"]))[: draw(st.integers(1, 4))]
    names = names if {"chat", "speech"} & {*names} else ["chat", *names]
    parts = {"server": st.just("server:\n  log_level: info # x\n"), "echo": st.just("echo: true\n")}
    text = draw(st.sampled_from(["", "---\n", "# head\n\n", "\n"]))
    text += "".join(draw(comments) + draw(parts.get(name, sections(name, least))) for name in names) + draw(comments)
    text = text.rstrip("\n") if draw(st.booleans()) and "|+" not in text else text
    return text.replace("\n", draw(st.sampled_from(["\n", "\n", "\r\n"])))


anything = settings(
    max_examples=min(60, settings.default.max_examples), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@anything
@given(text=manifests(), section=st.sampled_from(["chat", "speech"]))
@example(text="chat:\r\n  a: {backend: echo}", section="speech")
@example(text="chat:\n  a:\n    description: |+\n      kept\n\n\n    backend: echo\nspeech: {}", section="chat")
def test_what_is_added_and_removed_again_leaves_the_file_byte_for_byte(text: str, section: str) -> None:
    assume_valid(text)
    after = add(text, section)
    assert remove(after, "new", section) == text


@anything
@given(text=manifests(), section=st.sampled_from(["chat", "speech"]))
def test_adding_changes_nothing_but_lines_that_it_adds(text: str, section: str) -> None:
    assume_valid(text)
    after = add(text, section)
    if f"{section}: {{" in text:
        return  # in brackets, the entry stands on a line that was there
    ended = text if text.endswith("\n") else text + ("\r\n" if "\r\n" in text else "\n")
    assert all(line.startswith("+ ") for line in changed(ended, after if text is ended else after + ended[len(text) :]))


@anything
@given(text=manifests(least=1), data=st.data())
def test_removing_takes_out_lines_of_the_entry_alone(text: str, data: st.DataObject) -> None:
    assume_valid(text)
    before = said(Text(Path("x"), text, ""))
    known = [(section, name) for section in ("chat", "speech") for name in before.get(section) or {}]
    section, name = data.draw(st.sampled_from(known))
    after = said(Text(Path("x"), remove(text, name, section), ""))
    del before[section][name]
    assert {k: v for k, v in after.items() if v} == {k: v for k, v in before.items() if v}


def assume_valid(text: str) -> None:
    try:
        said(Text(Path("models.yaml"), text, ""))
    except ManifestError:
        assume(False)
