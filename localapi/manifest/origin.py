"""Tree of values that know their origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localapi.errors import Problem, readable

KeyPath = tuple[str | int, ...]
Plain = str | int | float | bool | None

_SHOWN = 60


@dataclass(frozen=True)
class Origin:
    """File, line and column of a value, or its variable."""

    source: str
    """File as it was named, or "environment NAME"."""
    folder: Path
    """Folder that relative paths start from."""
    line: int | None = None
    column: int | None = None
    note: str = ""

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"
        return f"{place} ({self.note})" if self.note else place

    def problem(self, message: str, key: KeyPath = ()) -> Problem:
        """Return a problem at this place."""
        return Problem(self.source, readable(message), ".".join(map(str, key)), self.line, self.column)


@dataclass(frozen=True)
class Scalar:
    """One value."""

    value: Plain
    text: str
    """Value as written, without quotes."""
    origin: Origin
    is_plain: bool = False
    """True if it was written without quotes, and not as a block scalar."""


@dataclass(frozen=True)
class Items:
    """A list."""

    nodes: tuple[Node, ...]
    origin: Origin


@dataclass(frozen=True)
class Member:
    """Key of a table, and its value."""

    origin: Origin
    """Origin of the key."""
    node: Node


@dataclass(frozen=True)
class Table:
    """A mapping."""

    members: dict[str, Member]
    origin: Origin

    def get(self, key: str) -> Node | None:
        """Return the value of a key."""
        member = self.members.get(key)
        return member.node if member else None

    def table(self, key: str) -> Table | None:
        """Return the value of a key, if it is a table."""
        node = self.get(key)
        return node if isinstance(node, Table) else None

    def section(self, key: str) -> dict[str, Member]:
        """Return the members of the table below a key; empty if there is none."""
        table = self.table(key)
        return table.members if table else {}


Node = Scalar | Items | Table


def plain(node: Node) -> object:
    """Return a node as a plain dict, list or scalar."""
    if isinstance(node, Table):
        return {key: plain(member.node) for key, member in node.members.items()}
    if isinstance(node, Items):
        return [plain(item) for item in node.nodes]
    return node.value


def leaves(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """Yield every scalar and list with its path of keys; a list is one leaf, because layers replace it as a whole."""
    if isinstance(node, Table) and node.members:
        for key, member in node.members.items():
            yield from leaves(member.node, (*path, key))
    else:
        yield path, node


def follow(node: Node, location: Iterable[str | int]) -> Iterator[tuple[str | int, Origin, Node]]:
    """Yield the key, its origin and the value for each existing step of a location. Other steps are skipped."""
    for step in location:
        if isinstance(node, Table) and step in node.members:
            member = node.members[str(step)]
            node = member.node
            yield step, member.origin, node
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.nodes):
            node = node.nodes[step]
            yield step, node.origin, node


def noun(node: Node) -> str:
    """Describe a node for a message: the text 'abc', the number 1.10, a list."""
    if isinstance(node, Table):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return node.text
    if isinstance(node.value, int | float):
        return f"the number {node.text}"
    return f"the text {node.text[:_SHOWN] + '...' * (len(node.text) > _SHOWN)!r}"


def written(node: Node) -> str:
    """Return the value as YAML, on one line."""
    if isinstance(node, Table):
        return "{" + ", ".join(f"{key}: {written(member.node)}" for key, member in node.members.items()) + "}"
    if isinstance(node, Items):
        return "[" + ", ".join(written(item) for item in node.nodes) + "]"
    return node.text
