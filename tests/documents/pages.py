"""The documents as tests read them: README.md, what lies beside it, and each page of docs/, found by what is there.

A fenced block runs in the tests, or the comment before it says why it cannot: `<!-- not run: needs a Mac -->`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from tests.server import Server

ROOT = Path(__file__).parents[2]
HERE = "http://127.0.0.1:8000"
"""The server's address as the documents write it."""

_FENCE = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    place: str
    """The page, and the line of its first fence."""
    language: str
    text: str
    not_run: str | None
    """Reason why it cannot run here."""

    @property
    def first_comment(self) -> str:
        """Comment in the first line, which names the file of the block in YAML and JSON."""
        found = re.match(r"(?:#|//) (\S+)\n", self.text)
        return found[1] if found else ""


@dataclass(frozen=True)
class Page:
    """One document."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(f"{self.name}:{self._line(found.start(2))}", found[2], found[3], found[1])
            for found in _FENCE.finditer(self.text)
        ]

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    @cached_property
    def prose(self) -> str:
        """The text without its blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def headings(self) -> list[str]:
        """With the marks of their levels."""
        return re.findall(r"^#+ .+$", self.prose, re.MULTILINE)

    @property
    def anchors(self) -> set[str]:
        """Anchors that links may name: the headings as GitHub writes them."""
        titles = (heading.lstrip("#").strip().lower() for heading in self.headings)
        return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}

    def section(self, title: str) -> str:
        """The text from a heading to the next one, of whatever level."""
        return re.split(r"^#+ ", self.text.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]

    def table(self, title: str) -> list[list[str]]:
        """The cells of the rows below the head of the table in a section."""
        return cells(self.section(title))[1:]


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in a text, heads included."""
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("-: ")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


README = Page(ROOT / "README.md")
CHINESE = Page(ROOT / "README.zh-CN.md")
BESIDE = [path for name in ("CHANGELOG.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()]
PAGES = [README, *map(Page, [*BESIDE, *sorted((ROOT / "docs").glob("*.md"))])]


def page(name: str) -> Page:
    """A page of docs/."""
    return Page(ROOT / "docs" / name)


def blocks(*languages: str) -> list[Block]:
    """All blocks in a language that can run here."""
    return [each for each in every_block() if each.language in languages and each.not_run is None]


def every_block() -> list[Block]:
    return [block for page in PAGES for block in page.blocks]


def lines_of_shell() -> list[str]:
    """Return the lines that a person types; one that ends with a backslash goes on."""
    whole = [block.text.replace("\\\n", " ") for block in blocks("sh")]
    return [line for text in whole for line in text.splitlines() if line and not line.startswith("#")]


def at(server: Server, text: str) -> str:
    """The example, sent to the server of a test."""
    assert HERE in text
    return text.replace(HERE, server.url)


def parameters(found: list[Block]) -> list[pytest.param]:
    """Blocks as parameters of a test, named by their places."""
    return [pytest.param(block, id=block.place) for block in found]
