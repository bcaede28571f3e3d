"""Add a member to a mapping of a YAML text, or remove one, by the positions of keys and values."""

from __future__ import annotations

import re
from typing import Final

from localapi.manifest.lines import Lines
from localapi.manifest.positions import Placed, PlacedMember
from localapi.manifest.scalars import block_lines

STEP: Final = 2
_SEPARATOR: Final = re.compile(r"\s*,[ \t]*")


def into_block(lines: Lines, mapping: Placed, key: str, value: object, *, levels: int = 1) -> str:
    """Return the text with a new member at the end of a block."""
    last, indent = mapping.members[-1], lines.column(mapping.members[0].start)
    new = block_lines(key, value, indent, step_of(lines, mapping), levels=levels)
    spaced = len(mapping.members) > 1 and lines.blank_above(lines.begin(last.start, indent, 0))
    at = lines.after(last.end, indent, keeps=last.value.keeps)
    return lines.inserted(at, ["", *new] if spaced and not last.value.keeps else new)


def into_flow(text: str, mapping: Placed, item: str) -> str:
    """Return the text with a new member at the end of a mapping in braces."""
    at, comma = (mapping.members[-1].end, ", ") if mapping.members else (text.index("{", mapping.start) + 1, "")
    return text[:at] + comma + item + text[at:]


def step_of(lines: Lines, root: Placed) -> int:
    """Return the indentation of the first block in a mapping, relative to the mapping."""
    for member in root.members:
        if member.value.form == "block":
            return max(lines.column(member.value.members[0].start) - lines.column(member.start), 1)
    return STEP


def out_of_block(lines: Lines, mapping: Placed, member: PlacedMember) -> str:
    """Return the text without a member of a block and its comments."""
    at, indent = mapping.members.index(member), lines.column(member.start)
    before = mapping.members[at - 1] if at else None
    floor = lines.after(before.end, indent, keeps=before.value.keeps) if before else 0
    start = lines.begin(member.start, indent, floor)
    end = lines.after(member.end, indent, keeps=member.value.keeps)
    if before is not None:
        while start > floor and lines.blank_above(start):
            start = lines.previous_line(start)
        # The following lines must not become the end of a block scalar that keeps its blank lines; a comment would
        # end it.
        spare = before.value.keeps and not lines.text[before.end : start].strip()
    else:
        spare = at + 1 < len(mapping.members) and not lines.blank_above(start)
    while spare and end < len(lines.text) and lines.is_blank(end):
        end = lines.next_line(end)
    return lines.removed(start, end)


def out_of_flow(text: str, mapping: Placed, member: PlacedMember) -> str:
    """Return the text without a member of a mapping in braces."""
    at = mapping.members.index(member)
    if at and "#" not in text[mapping.members[at - 1].end : member.start]:
        return text[: mapping.members[at - 1].end] + text[member.end :]
    comma = _SEPARATOR.match(text, member.end)
    return text[: member.start] + text[comma.end() if comma else member.end :]
