"""Entries of a manifest file as data, as written in the file, for a page that edits them.

Only the file counts: neither profile nor environment, nor the values of references such as `${env.NAME}`. Possible
secrets are replaced by marks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from localapi.kinds import KINDS
from localapi.manifest.editing import is_blank, said
from localapi.manifest.lines import Lines
from localapi.manifest.members import STEP
from localapi.manifest.origin import KeyPath
from localapi.manifest.positions import Placed, PlacedMember, place
from localapi.manifest.scalars import block_lines
from localapi.manifest.text import Text
from localapi.manifest.values import MERGE
from localapi.manifest.withheld import hide, marked, spans

SERVER: Final = "server"
PEERS: Final = "peers"


@dataclass(frozen=True)
class Written:
    """One entry, one peer, or the section `server`, whose id is empty."""

    section: str
    id: str
    line: int
    """Line of its key, from 1."""
    options: Mapping[str, object]
    """Its own values, with marks instead of secrets."""
    inherited: Mapping[str, object]
    """Values inherited by `<<`, with marks instead of secrets."""
    yaml: str
    """Its lines, starting at its key, with marks instead of secrets."""

    @property
    def path(self) -> tuple[str, ...]:
        return path_of(self.section, self.id)


def path_of(section: str, entry_id: str) -> tuple[str, ...]:
    """Return the path of keys of an entry, a peer, or the section `server`."""
    return (section, entry_id) if entry_id else (section,)


def written_in(text: Text) -> list[Written]:
    """Return the content of a file, in order.

    Raise ManifestError if it is not YAML, and CannotEdit for unusual sections.
    """
    content = said(text)  # raises for anything that `place` does not support
    root = None if is_blank(text) else place(text.text)
    lines = Lines(text.text)
    return [] if root is None else [_written(lines, member, path, content) for member, path in _places(root)]


def own_values(member: PlacedMember, value: object) -> tuple[dict[str, object], dict[str, object]]:
    """Return a mapping's own values, and those that it inherits from an alias or `<<`."""
    if not isinstance(value, Mapping):
        return {}, {}
    keys = {each.key for each in member.value.members} - {MERGE}
    own = {key: part for key, part in value.items() if key in keys}
    return own, {key: part for key, part in value.items() if key not in keys}


def value_at(content: object, path: KeyPath) -> object:
    """Return the value at a path of keys; None if there is none."""
    for key in path:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def lines_of(lines: Lines, member: PlacedMember) -> tuple[int, int] | None:
    """Return where the lines of a member start and end; None if it shares them with others, in braces."""
    start, end = (
        lines.line_start(member.start),
        lines.after(member.end, lines.column(member.start), keeps=member.value.keeps),
    )
    alone = not lines.text[start : member.start].strip()
    last = lines.text[member.end : lines.line_end(max(member.end - 1, 0))].strip()
    return (start, end) if alone and (not last or last.startswith("#")) else None


def _places(root: Placed) -> Iterator[tuple[PlacedMember, tuple[str, ...]]]:
    for member in root.members:
        if member.key == SERVER:
            yield member, (SERVER,)
        elif member.key in KINDS or member.key == PEERS:
            for each in member.value.members:
                if each.key != MERGE:
                    yield each, (member.key, each.key)


def _written(lines: Lines, member: PlacedMember, path: tuple[str, ...], content: Mapping[str, object]) -> Written:
    own, inherited = own_values(member, value_at(content, path))
    shown, taken = marked(path, own), marked(path, inherited)
    assert isinstance(shown, dict) and isinstance(taken, dict)  # noqa: S101, PT018  # of dicts
    return Written(
        section=path[0],
        id=path[1] if len(path) > 1 else "",
        line=lines.text.count("\n", 0, member.start) + 1,
        options=shown,
        inherited=taken,
        yaml=_yaml(lines, member, path, shown),
    )


def _yaml(lines: Lines, member: PlacedMember, path: tuple[str, ...], shown: Mapping[str, object]) -> str:
    """Return the lines of an entry without their indentation; an entry in braces gets lines of its own."""
    place = lines_of(lines, member)
    if place is None:
        return "\n".join([*block_lines(path[-1], shown, 0, STEP), ""])
    start, end = place
    text = hide(lines.text[start:end], spans(lines.text, member.value, path, start, end), start)
    indent = lines.column(member.start)
    return "".join(line.removeprefix(" " * indent) for line in text.splitlines(keepends=True))
