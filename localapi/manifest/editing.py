"""Insert an entry into a manifest's text, or remove one, and leave every other line unchanged.

Lines are inserted and removed at the parser's positions of keys and values. (ruamel.yaml keeps comments when it writes
a file, but neither indentation nor spaces.) The result is read again: if anything but the entry has changed, the edit
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from localapi.errors import CannotEdit, ManifestError
from localapi.manifest.lines import Lines
from localapi.manifest.members import STEP, into_block, into_flow, out_of_block, out_of_flow, step_of
from localapi.manifest.origin import Table, plain
from localapi.manifest.positions import Placed, PlacedMember, place
from localapi.manifest.scalars import block_lines, in_yaml
from localapi.manifest.text import Text
from localapi.manifest.yaml_layer import layer_of

_BARE: Final = re.compile(r"\s*:[ \t]*")
"""Rest of the line after the key of a section that begins on the next line."""

Options = Mapping[str, object]


def with_entry(text: Text, section: str, entry_id: str, options: Options) -> str:
    """Return the text with a new entry at the end of its section.

    Raise CannotEdit, or ManifestError for an invalid text.
    """
    before = said(text)
    entries = dict(entries_of(before, section))
    if entry_id in entries:
        raise CannotEdit(f"{text.path} already has an entry {section}.{entry_id}")
    after = _with_entry(Lines(text.text), place(text.text), section, entry_id, options)
    expected = {**before, section: {**entries, entry_id: dict(options)}}
    return _checked(text, after, expected, f"add {section}.{entry_id}")


def without_entry(text: Text, section: str, entry_id: str) -> str:
    """Return the text without an entry and its comments. Raise CannotEdit or ManifestError as `with_entry` does."""
    before = said(text)
    entries = dict(entries_of(before, section))
    root = place(text.text)
    of_section = root.member(section) if root else None
    member = of_section.value.member(entry_id) if of_section else None
    if root is None or of_section is None or member is None:
        raise CannotEdit(
            f"{section}.{entry_id} is not written in {text.path} itself, but comes from an alias (* or <<); "
            "edit the file by hand"
        )
    del entries[entry_id]
    after = _without_entry(Lines(text.text), root, of_section, member)
    expected = {**before, section: entries}
    return _checked(text, after, expected, f"remove {section}.{entry_id}")


def entries_of(manifest: Mapping[str, object], section: str) -> Mapping[str, object]:
    """Return the entries of a section in the result of `said`. Raise CannotEdit if the section is not a mapping."""
    found = manifest.get(section)
    if not isinstance(found, Mapping | None):
        raise CannotEdit(f"the section {section} should map ids to models; fix it by hand")
    return found or {}


def is_blank(text: Text) -> bool:
    """Return whether there are only comments. A server refuses such a file, because it may be half-written."""
    return all(line.strip()[:1] in ("", "#") for line in text.text.splitlines())


def said(text: Text) -> dict[str, object]:
    """Return the content of a single text; empty if it has only comments. Raise ManifestError."""
    if is_blank(text):
        return {}
    layer = layer_of(text)
    if layer.problems or not isinstance(layer.root, Table):
        raise ManifestError(layer.problems)
    found = plain(layer.root)
    assert isinstance(found, dict)  # noqa: S101  # a Table
    return found


def _checked(text: Text, after: str, expected: Mapping[str, object], what: str) -> str:
    found = said(Text(text.path, after, ""))
    if unlike(found, expected):
        raise CannotEdit(f"{text.path} cannot be edited automatically because of its form: {what} by hand")
    return after


def unlike(found: Mapping[str, object], expected: Mapping[str, object]) -> bool:
    """Return whether two contents differ in more than empty sections."""
    return _without_empty(found) != _without_empty(expected)


def _without_empty(manifest: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in manifest.items() if value not in (None, {})}


def _with_entry(lines: Lines, root: Placed | None, section: str, entry_id: str, options: Options) -> str:
    if root is None:
        return lines.inserted(len(lines.text), [f"{section}:", *block_lines(entry_id, options, STEP, STEP)])
    member = root.member(section)
    if member is None:
        return _with_section(lines, root, section, entry_id, options)
    value, flow = member.value, f"{in_yaml(entry_id)}: {in_yaml(options)}"
    if value.form == "flow":
        return into_flow(lines.text, value, flow)
    if value.form == "block":
        return into_block(lines, value, entry_id, options)
    if value.form != "scalar":
        raise CannotEdit(f"the section {section} is an alias; edit the file by hand")
    if value.start < value.end:  # null, ~
        return lines.text[: value.start] + f"{{{flow}}}" + lines.text[value.end :]
    indent, step = lines.column(member.start), step_of(lines, root)
    return lines.inserted(lines.after(value.end, indent), block_lines(entry_id, options, indent + step, step))


def _with_section(lines: Lines, root: Placed, section: str, entry_id: str, options: Options) -> str:
    if root.form == "flow":
        return into_flow(lines.text, root, f"{section}: {in_yaml({entry_id: options})}")
    indent, step = lines.column(root.members[0].start), step_of(lines, root)
    new = [f"{' ' * indent}{section}:", *block_lines(entry_id, options, indent + step, step)]
    at = lines.after_all(root.end, indent, keeps=root.keeps)
    return lines.inserted(at, new if at == root.end else ["", *new])


def _without_entry(lines: Lines, root: Placed, section: PlacedMember, member: PlacedMember) -> str:
    if section.value.form == "flow":
        return out_of_flow(lines.text, section.value, member)
    if len(section.value.members) == 1 and _goes_with_its_entry(lines, root, section):
        return out_of_block(lines, root, section)
    return out_of_block(lines, section.value, member)


def _goes_with_its_entry(lines: Lines, root: Placed, section: PlacedMember) -> bool:
    """Return whether a section would be left without entries and comments."""
    indent, key_end = lines.column(section.start), section.start + len(section.key)
    (entry,) = section.value.members
    inner, keeps = lines.column(entry.start), entry.value.keeps
    return (
        len(root.members) > 1
        and _BARE.fullmatch(lines.text, key_end, lines.line_end(key_end)) is not None
        and lines.begin(section.start, indent, 0) == lines.line_start(section.start)
        and lines.begin(entry.start, inner, 0) <= lines.next_line(section.start)
        and lines.after_all(entry.end, indent, keeps=keeps) == lines.after(entry.end, inner, keeps=keeps)
    )
