"""Whatever the documents name is there: files, links, headings. And the README stays short."""

from __future__ import annotations

import re

import pytest

from tests.documents.pages import CHINESE, PAGES, README, ROOT, Page, quoted

OF_OTHERS = {".yaml", "chatLanguageModels.json", "config.json", "models.schema.json", "modules.json", ".onnx.json"}
"""Files that no checkout has: models, users and other programs do. An ending alone is what follows a `*`."""
LONGEST_README = 149

ALL = [*PAGES, CHINESE] if CHINESE.path.exists() else PAGES
EACH_PAGE = pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in ALL])


@EACH_PAGE
def test_each_file_that_is_named_exists(page: Page) -> None:
    words = {word for word in re.findall(r"[\w./~-]+", " ".join(quoted(page.prose))) if word[0] not in "/~"}
    files = {
        word
        for word in words
        if re.search(r"\.(py|yaml|json|toml|http|md)$", word) or word.startswith((".ci/", "localapi/", "tests/"))
    }
    assert {word for word in files - OF_OTHERS if "NAME" not in word and not (ROOT / word).exists()} == set()


def test_the_readme_names_the_files_that_people_edit_and_run() -> None:
    named = set(quoted(README.prose))
    assert named > {"models.yaml", "requests.http", ".ci/run"}


@EACH_PAGE
def test_each_link_leads_to_a_file_and_a_heading(page: Page) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.prose):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        there = Page((page.path.parent / name).resolve()) if name else page
        assert there.path.is_file(), target
        assert not anchor or anchor in there.anchors, target


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[str] = set()
    new = {README.name}
    while new:
        seen |= new
        pages = [page for page in PAGES if page.name in new]
        links = {(page.path.parent / link) for page in pages for link in re.findall(r"\]\(([\w./-]+\.md)", page.prose)}
        new = {str(link.resolve().relative_to(ROOT)) for link in links} - seen
    assert {page.name for page in PAGES} - seen == set()


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.text.splitlines()) <= LONGEST_README
