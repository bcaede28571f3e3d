"""Change an entry, a peer or the server options in a manifest's text, and leave every other line unchanged.

The result is read again: if anything else has changed, the edit is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localapi.errors import CannotEdit, ManifestError
from localapi.manifest.editing import entries_of, is_blank, said, unlike, without_entry
from localapi.manifest.lines import BREAK, Lines
from localapi.manifest.origin import Table, plain
from localapi.manifest.text import Text
from localapi.manifest.values import member_at, with_key, with_mapping, with_value, without_value
from localapi.manifest.withheld import reveal, spans, unmarked
from localapi.manifest.written import SERVER, lines_of, own_values, path_of, value_at
from localapi.manifest.yaml_layer import layer_of


@dataclass(frozen=True)
class Patch:
    """Change of one entry, one peer, or the section `server`, whose id is empty."""

    section: str
    id: str = ""
    options: Mapping[str, object] | None = None
    """Its new values; marks stand for secrets that are kept."""
    yaml: str | None = None
    """Its new lines, starting at its key, instead of `options`. None for both removes it."""
    new_id: str | None = None

    @property
    def path(self) -> tuple[str, ...]:
        return path_of(self.section, self.id)

    def __str__(self) -> str:
        return ".".join(self.path)


def with_patches(text: Text, patches: Sequence[Patch]) -> str:
    """Return the text with these changes, applied in order. Raise CannotEdit or ManifestError."""
    for patch in patches:
        text = Text(text.path, _with_patch(text, patch), "")
    return text.text


def _with_patch(text: Text, patch: Patch) -> str:
    content = {} if is_blank(text) else said(text)
    member = None if is_blank(text) else member_at(text.text, patch.path)
    exists = value_at(content, patch.path) is not None or member is not None
    if exists and member is None:
        raise CannotEdit(
            f"{patch} is not written in {text.path} itself, but comes from an alias (* or <<); edit the file by hand"
        )
    if patch.yaml is not None and exists:
        return _with_lines(text, patch, patch.yaml, content)
    if patch.yaml is not None:
        patch = _read(patch, patch.yaml)
    if patch.options is None:
        return _removed(text, patch, exists=exists)
    if not exists:
        options = unmarked(patch.options, None, patch.path)
        after = with_value(text.text, patch.path, options)
        return _checked(text, after, _put(content, patch.path, options), patch)
    return _with_options(text, patch, patch.options, content)


def _with_options(text: Text, patch: Patch, options: Mapping[str, object], content: Mapping[str, object]) -> str:
    member = member_at(text.text, patch.path)
    assert member is not None  # noqa: S101  # it exists
    before = value_at(content, patch.path)
    own, inherited = own_values(member, before)
    wanted = unmarked(options, own, patch.path)
    assert isinstance(wanted, dict)  # noqa: S101  # of a mapping
    if member.value.form in ("block", "flow"):
        after = with_mapping(text.text, patch.path, own, wanted)
    else:
        after = with_value(text.text, patch.path, wanted)
    expected = _put(content, patch.path, {**inherited, **wanted})
    if patch.new_id and patch.new_id != patch.id:
        after = with_key(after, patch.path, patch.new_id)
        expected = _renamed(expected, patch, patch.new_id, text)
    return _checked(text, after, expected, patch)


def _with_lines(text: Text, patch: Patch, yaml: str, content: Mapping[str, object]) -> str:
    """Return the text with an entry's lines replaced."""
    lines, member = Lines(text.text), member_at(text.text, patch.path)
    place = None if member is None else lines_of(lines, member)
    if member is None or place is None:  # in braces, it has no lines of its own
        whole = _read(patch, yaml)
        return _with_options(text, whole, whole.options or {}, content)
    start, end = place
    hidden = spans(text.text, member.value, patch.path, start, end)
    indent = " " * lines.column(member.start)
    revealed = reveal(yaml.strip("\r\n"), text.text, hidden)
    new = [f"{indent}{line}" if line.strip() else line for line in BREAK.split(revealed)]
    after = Lines(text.text[:start] + text.text[end:]).inserted(start, new)
    found = said(Text(text.path, after, ""))
    others = _put(content, patch.path, None)
    ids = _entries(found, patch).keys() - _entries(others, patch).keys()
    name = next(iter(ids), None) if patch.id else SERVER
    if len(ids) != 1 or name is None:
        raise CannotEdit(f"the lines of {patch} should be one entry; found {len(ids)}")
    path = (*patch.path[:-1], name)
    return _checked(text, after, _put(others, path, value_at(found, path)), patch)


def _entries(content: Mapping[str, object], patch: Patch) -> Mapping[str, object]:
    if patch.id:
        return entries_of(content, patch.section)
    return {key: value for key, value in content.items() if key == SERVER}


def _read(patch: Patch, yaml: str) -> Patch:
    """Return the patch with the options that its lines contain. Raise ManifestError, with lines of this text."""
    layer = layer_of(Text(Path(str(patch)), yaml, ""))
    if layer.problems or not isinstance(layer.root, Table):
        raise ManifestError(layer.problems)
    found = plain(layer.root)
    assert isinstance(found, dict)  # noqa: S101  # a Table
    name, options = next(iter(found.items()), ("", None))
    if len(found) != 1 or not isinstance(options, dict):
        raise CannotEdit(f"the lines of {patch} should be one key, and its options below it")
    return Patch(patch.section, patch.id or "", options, new_id=name if patch.id and name != patch.id else None)


def _removed(text: Text, patch: Patch, *, exists: bool) -> str:
    if not exists:
        raise CannotEdit(f"{text.path} has no {patch}")
    if patch.id:
        return without_entry(text, patch.section, patch.id)
    return _checked(text, without_value(text.text, patch.path), _put(said(text), patch.path, None), patch)


def _renamed(content: dict[str, object], patch: Patch, new_id: str, text: Text) -> dict[str, object]:
    entries = dict(entries_of(content, patch.section))
    if new_id in entries:
        raise CannotEdit(f"{text.path} already has an entry {patch.section}.{new_id}")
    entries[new_id] = entries.pop(patch.id)
    return {**content, patch.section: entries}


def _put(content: Mapping[str, object], path: tuple[str, ...], value: object) -> dict[str, object]:
    """Return the content with a value at a path; None removes the present value."""
    key, *rest = path
    below = content.get(key)
    if rest:
        value = _put(below if isinstance(below, Mapping) else {}, tuple(rest), value)
    if value is None:
        return {name: part for name, part in content.items() if name != key}
    return {**content, key: value}


def _checked(text: Text, after: str, expected: Mapping[str, object], patch: Patch) -> str:
    if unlike(said(Text(text.path, after, "")), expected):
        raise CannotEdit(
            f"{patch} cannot be changed here because of the form of {text.path}, such as anchors that others share; "
            f"edit the file by hand"
        )
    return after
