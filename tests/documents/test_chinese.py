"""README.zh-CN.md says in Chinese what README.md says: the same headings, code, tables and links, in the same order."""

from __future__ import annotations

import re

import pytest

from tests.documents.pages import CHINESE, README, Page, cells

pytestmark = pytest.mark.skipif(not CHINESE.path.exists(), reason="README.zh-CN.md is not written yet")

EACH_OTHER = {"README.md": "README.zh-CN.md", "README.zh-CN.md": "README.md"}


def levels(page: Page) -> list[str]:
    return [heading.partition(" ")[0] for heading in page.headings]


def code(page: Page) -> list[tuple[str, str]]:
    """The blocks without comments, and without the space before them; in pictures of text only the lines count."""
    return [
        (block.language, str(block.text.count("\n")) if block.language == "text" else without_comments(block.text))
        for block in page.blocks
    ]


def without_comments(text: str) -> str:
    lines = (re.sub(r"(^|\s+)# .*$", "", line).rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def first_columns(page: Page) -> list[str]:
    """Return the first columns of all tables without their heads: names, which have no translation."""
    return [row[0] for row in cells(page.prose) if "`" in row[0] or row[0].isdigit() or row[0].isupper()]


def links(page: Page) -> list[str]:
    """Return the targets of links, without anchors and without the links between the two."""
    found = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.prose)
    return sorted(link for link in found if link != EACH_OTHER[page.name])


def quotes(page: Page) -> set[str]:
    """Return what the prose quotes as code: names of options, files, commands."""
    return set(re.findall(r"`([^`\n]+)`", page.prose))


def test_the_headings_have_the_same_levels() -> None:
    assert levels(CHINESE) == levels(README)


def test_the_code_is_the_same_but_for_its_comments() -> None:
    assert code(CHINESE) == code(README)


def test_the_tables_have_the_same_rows() -> None:
    assert first_columns(CHINESE) == first_columns(README)


def test_the_links_lead_to_the_same_pages() -> None:
    assert links(CHINESE) == links(README)


def test_the_same_names_are_named() -> None:
    assert quotes(CHINESE) == quotes(README)


def test_each_leads_to_the_other() -> None:
    assert "](README.zh-CN.md)" in README.prose
    assert "](README.md)" in CHINESE.prose


def test_the_headings_are_translated() -> None:
    assert [heading for heading in CHINESE.headings[1:] if not re.search(r"[\u4e00-\u9fff]", heading)] == []
