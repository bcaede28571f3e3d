"""Set or remove values in a manifest's text by path of keys, and leave every other line unchanged.

A value that equals the present one is not touched, so that its comments and form are kept. Nothing here checks the
result: `changing` reads it again.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from localapi.errors import CannotEdit
from localapi.manifest.lines import Lines
from localapi.manifest.members import STEP, into_block, into_flow, out_of_block, out_of_flow, step_of
from localapi.manifest.positions import Placed, PlacedMember, place
from localapi.manifest.scalars import block_lines, in_yaml, on_line

Path = tuple[str, ...]
MERGE: Final = "<<"
_BLOCK_LEVELS: Final = 2
"""Levels of new mappings that are written as blocks: the sections and their entries."""


def with_mapping(text: str, path: Path, before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Return the text in which the mapping at a path has the values of `after`.

    `before` contains its own values, without those from `<<`. Raise CannotEdit for an alias.
    """
    for key, value in before.items():
        if key not in after:
            text = without_value(text, (*path, key))
        elif value != after[key] or isinstance(value, bool) != isinstance(after[key], bool):
            text = _with_changed(text, (*path, key), value, after[key])
    for key, value in after.items():
        if key not in before:
            text = with_value(text, (*path, key), value)
    return text


def _with_changed(text: str, path: Path, before: object, after: object) -> str:
    member = member_at(text, path)
    nested = isinstance(before, Mapping) and isinstance(after, Mapping) and before and after
    if nested and member is not None and member.value.form in ("block", "flow"):
        own = {each.key for each in member.value.members}
        if MERGE not in own:
            return with_mapping(text, path, before, after)  # type: ignore[arg-type]  # both are mappings
    if member is not None and member.value.items and isinstance(before, list) and isinstance(after, list):
        changed = _with_items(text, member.value, before, after)
        if changed is not None:
            return changed
    return with_value(text, path, after)


def with_value(text: str, path: Path, value: object) -> str:
    """Return the text with a value at a path, replacing the present one if any. Raise CannotEdit for an alias."""
    lines, root = Lines(text), place(text)
    if root is None:
        return lines.inserted(len(text), block_lines(path[0], _wrapped(path[1:], value), 0, STEP, levels=_levels(0)))
    mapping, depth = root, 0
    while (member := mapping.member(path[depth])) is not None:
        if depth + 1 == len(path):
            return _replaced(lines, member, value, in_brackets=mapping.form == "flow")
        if member.value.form not in ("block", "flow"):
            return _into_other(lines, mapping, member, path[: depth + 1], _wrapped(path[depth + 1 :], value))
        mapping, depth = member.value, depth + 1
    return _added(lines, mapping, path, depth, value)


def without_value(text: str, path: Path) -> str:
    """Return the text without the existing value at a path, and without its comments."""
    lines, mapping = Lines(text), place(text)
    for key in path[:-1]:
        member = mapping.member(key) if mapping else None
        mapping = member.value if member else None
    member = mapping.member(path[-1]) if mapping else None
    if mapping is None or member is None:
        raise CannotEdit(f"{'.'.join(path)} comes from an alias (* or <<); edit the file by hand")
    if mapping.form == "flow":
        return out_of_flow(text, mapping, member)
    if len(mapping.members) == 1:  # without it, the key above would have no value
        above = member_at(text, path[:-1])
        return text if above is None else _replaced(lines, above, {})
    return out_of_block(lines, mapping, member)


def with_key(text: str, path: Path, key: str) -> str:
    """Return the text in which the existing key at a path has another name."""
    member = member_at(text, path)
    if member is None:
        raise CannotEdit(f"{'.'.join(path)} comes from an alias (* or <<); edit the file by hand")
    whole = text[member.start : member.key_end]
    start = member.key_end - len(whole.lstrip("? "))  # an explicit key starts after its ?
    return text[:start] + in_yaml(key) + text[member.key_end :]


def member_at(text: str, path: Path) -> PlacedMember | None:
    """Return the key and value at a path; None if they are not written there."""
    mapping, member = place(text), None
    for key in path:
        member = mapping.member(key) if mapping else None
        mapping = member.value if member else None
    return member


def _levels(depth: int) -> int:
    """Return how many levels of a new value below this depth are written as blocks."""
    return max(0, _BLOCK_LEVELS - depth)


def _wrapped(path: Path, value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


def _added(lines: Lines, mapping: Placed, path: Path, depth: int, value: object) -> str:
    """Return the text with a new member at the end of a mapping."""
    key, wrapped = path[depth], _wrapped(path[depth + 1 :], value)
    if mapping.form == "flow":
        return into_flow(lines.text, mapping, f"{in_yaml(key)}: {in_yaml(wrapped)}")
    if depth > 0:
        return into_block(lines, mapping, key, wrapped, levels=_levels(depth))
    indent, step = lines.column(mapping.members[0].start), step_of(lines, mapping)
    new = block_lines(key, wrapped, indent, step, levels=_levels(0))
    at = lines.after_all(mapping.end, indent, keeps=mapping.keeps)
    return lines.inserted(at, new if at == mapping.end else ["", *new])


def _into_other(lines: Lines, above: Placed, member: PlacedMember, path: Path, value: object) -> str:
    """Return the text with a mapping for the key at a path, which has none yet."""
    if member.value.form != "scalar":
        raise CannotEdit(f"{'.'.join(path)} is an alias; edit the file by hand")
    indent, step = lines.column(member.start), step_of(lines, above)
    new = block_lines(path[-1], value, indent, step, levels=_levels(len(path) - 1))[1:]
    if member.value.start < member.value.end or above.form == "flow" or not new:  # null, ~
        return _replaced(lines, member, value)
    return lines.inserted(lines.after(member.value.end, indent), new)


def _replaced(lines: Lines, member: PlacedMember, value: object, *, in_brackets: bool = False) -> str:
    """Return the text with another value for a key, on the key's line."""
    text, old = lines.text, member.value
    written = in_yaml(value) if in_brackets else on_line(value)
    if old.form in ("block", "list") and text[member.key_end : old.start].count("\n"):
        # The block is replaced; a comment on its key's line is kept.
        colon = text.index(":", member.key_end) + 1
        comment = text[colon : lines.line_end(colon)].rstrip()
        end = lines.text.rindex("\n", 0, old.end) if old.keeps and text[: old.end].endswith("\n") else old.end
        return f"{text[:colon]} {written}{f'  {comment.lstrip()}' if comment.strip() else ''}{text[end:]}"
    space = "" if text[: old.start].endswith((" ", "\t")) else " "
    tail = "\n" if old.keeps else ""
    return f"{text[: old.start]}{space}{written}{tail}{text[old.end :]}"


def _with_items(text: str, old: Placed, before: Sequence[object], after: Sequence[object]) -> str | None:
    """Return the text with another list that has a line for each item; None if it is not written in that form."""
    lines = Lines(text)
    dash, firsts = lines.column(old.start), [lines.line_start(item.start) for item in old.items]
    whole = all(text[first : first + dash].isspace() or not dash for first in firsts)
    if text[old.start] != "-" or not whole or not after or any(text[first + dash] != "-" for first in firsts):
        return None
    starts = [lines.begin(item.start, dash, firsts[0]) for item in old.items]
    ends = [lines.after(item.end, dash, keeps=item.keeps) for item in old.items]
    same = difflib.SequenceMatcher(None, [json.dumps(each) for each in before], [json.dumps(each) for each in after])
    for what, low, high, new_low, new_high in reversed(same.get_opcodes()):
        new = [f"{' ' * dash}- {in_yaml(each)}" for each in after[new_low:new_high]]
        if what == "equal":
            continue
        if what == "replace" and high - low == new_high - new_low:
            for index in reversed(range(low, high)):
                item, written = old.items[index], in_yaml(after[new_low + index - low])
                text = text[: item.start] + written + text[item.end :]
            continue
        at = ends[low - 1] if low else firsts[0]
        if low < high:
            at = starts[low]
            text = text[:at] + text[ends[high - 1] :]
        text = Lines(text).inserted(at, new) if new else text
    return text
