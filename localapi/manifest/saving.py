"""Add an entry to a manifest file, or remove one: show the change, or save it atomically.

The result is first read as the server would read it, with profile and environment, so that an invalid edit is never
saved. Only the secrets of keys may be missing here.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import shlex
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.errors import CannotEdit, FileChanged
from localapi.kinds import KINDS
from localapi.manifest.changing import Patch, with_patches
from localapi.manifest.editing import Options, entries_of, is_blank, said, with_entry, without_entry
from localapi.manifest.entries import Manifest
from localapi.manifest.excerpts import shown_lines
from localapi.manifest.origin import plain
from localapi.manifest.reading import ManifestSource, read
from localapi.manifest.text import Text, read_text, text_of
from localapi.manifest.yaml_layer import layer_of
from localapi.system.atomic_file import replacing

_BOM: Final = b"\xef\xbb\xbf"
_WRITABLE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Edit:
    """Checked change of a file that is not saved yet."""

    path: Path
    """Path as it was named."""
    before: bytes | None
    """Content before the change; None if there is no file."""
    after: bytes

    @property
    def sha256(self) -> str:
        """Digest of the changed file, as in `GET /status`."""
        return hashlib.sha256(self.after).hexdigest()

    @property
    def text(self) -> Text:
        """Text of the changed file, to read the manifest as it will be."""
        return text_of(self.path, self.after)

    def shown_diff(self) -> str:
        """Return the change in the form of `diff -u` for a page, with possible secrets hidden."""
        before = shown_lines((self.before or b"").decode("utf-8-sig", errors="replace"))
        after = shown_lines(self.after.decode("utf-8-sig"))
        return unified(before, after, str(self.path))

    def diff(self) -> str:
        """Return the change in the form of `diff -u`, with line breaks unchanged."""
        old = [] if self.before is None else _lines(self.before)
        name = str(self.path)
        told = difflib.unified_diff(old, _lines(self.after), "/dev/null" if self.before is None else name, name)
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in told)

    def save(self) -> None:
        """Replace the file atomically, keeping its mode and links. Raise CannotEdit if it has changed since."""
        target = self.path.resolve()
        try:
            self._refuse_what_changed(target)
            self._refuse_read_only(target)
            mode = None if self.before is None else stat.S_IMODE(target.stat().st_mode)
            with replacing(target, mode=mode) as file:
                file.write(self.after)
                file.flush()
                os.fsync(file.fileno())
                self._refuse_what_changed(target)
        except OSError as error:
            raise CannotEdit(f"{self.path} cannot be written: {error.strerror or error}") from None

    def _refuse_what_changed(self, target: Path) -> None:
        now = target.read_bytes() if target.exists() else None
        if now != self.before:
            raise FileChanged(f"{self.path} has changed since it was read and was not saved; try again")

    def _refuse_read_only(self, target: Path) -> None:
        """Raise CannotEdit for a read-only file. It could be replaced, but is read-only for a reason."""
        if self.before is None:
            return
        if not stat.S_IMODE(target.stat().st_mode) & _WRITABLE or not os.access(target, os.W_OK):
            raise CannotEdit(f"{self.path} is read-only; allow edits with: chmod u+w {shlex.quote(str(self.path))}")


@dataclass(frozen=True)
class Draft:
    """Edit, and the manifest that would result."""

    edit: Edit
    manifest: Manifest


def changing(
    source: ManifestSource, path: Path, patches: Sequence[Patch], *, sha256: str | None, served: Manifest | None = None
) -> Draft:
    """Return the edit that makes these changes in one of a manifest's files, for a server with `served`. Blocks.

    `sha256` is the digest of the file to change; None if there is no file. Raise FileChanged if the file is different
    now, CannotEdit, or ManifestError.
    """
    before = content_of(path)
    if digest_of(before) != sha256:
        raise FileChanged(f"{path} has changed since it was read and was not saved")
    text = Text(path, "", "") if before is None else text_of(path, before)
    data = _bytes(before, with_patches(text, patches))
    manifest = read(source, text_of(path, data), served=served)
    return Draft(Edit(path, before, data), manifest)


def content_of(path: Path) -> bytes | None:
    """Return the content of a file; None if there is none. Raise ManifestError if it cannot be read."""
    if not os.path.lexists(path):
        return None
    read_text(path)  # raises with the reason if it cannot be read or is not text
    return path.read_bytes()


def digest_of(content: bytes | None) -> str | None:
    """Return the digest of a file's content, as in `GET /status`."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def unified(before: Sequence[str], after: Sequence[str], name: str) -> str:
    """Return the difference between lines in the form of `diff -u`."""
    told = difflib.unified_diff(_without_end(before), _without_end(after), name, name, lineterm="")
    return "".join(f"{line}\n" for line in told)


def _without_end(lines: Sequence[str]) -> Sequence[str]:
    """Return lines without the empty one after the last line break."""
    return lines[:-1] if lines and not lines[-1] else lines


def adding(source: ManifestSource, section: str, entry_id: str, options: Options) -> Edit:
    """Return the edit that adds an entry, and creates the file if necessary. Raise CannotEdit or ManifestError."""
    if not os.path.lexists(source.manifest):
        return _checked(
            source, source.manifest, None, with_entry(Text(source.manifest, "", ""), section, entry_id, options)
        )
    return _edited(source, source.manifest, lambda text: with_entry(text, section, entry_id, options))


def removing(source: ManifestSource, entry_id: str) -> Edit:
    """Return the edit that removes an entry. Raise CannotEdit, for example for an unknown id, or ManifestError."""
    known = files_of_entries(source)
    if entry_id not in known:
        listed = ", ".join(known) or "none"
        raise CannotEdit(f"{source.manifest} has no entry {entry_id!r}{_of_others(source, entry_id)}; it has: {listed}")
    path, section = known[entry_id]
    return _edited(source, path, lambda text: without_entry(text, section, entry_id))


def files_of_entries(source: ManifestSource) -> dict[str, tuple[Path, str]]:
    """Return the file of each entry of the manifest and its included files, and its section. Raise ManifestError."""
    found: dict[str, tuple[Path, str]] = {}
    for path in source.own_files():
        told = said(read_text(path))
        for section in KINDS:
            for entry_id in entries_of(told, section):
                found.setdefault(entry_id, (path, section))
    return found


def names_in(source: ManifestSource) -> set[str]:
    """Return all ids and aliases of the manifest. Raise ManifestError."""
    if not os.path.lexists(source.manifest) or is_blank(read_text(source.manifest)):
        return set()
    entries = read(source, needs_secrets=False).entries.values()
    return {name for entry in entries for name in (entry.id, *entry.options.aliases)}


def value_of(text: str, named: str) -> object:
    """Return the value of a YAML text. Raise CannotEdit, naming its source, if it is invalid."""
    layer = layer_of(Text(Path(named), f"value: {text}\n", ""))
    if layer.problems or layer.root is None or set(layer.root.members) != {"value"}:
        why = layer.problems[0].message if layer.problems else "it is more than one value"
        raise CannotEdit(f"{named}: {text!r} is not a YAML value: {why}")
    return plain(layer.root.members["value"].node)


def _of_others(source: ManifestSource, name: str) -> str:
    """Return the origin of a name that is not an id in the file, for a message."""
    manifest = read(source, needs_secrets=False)
    entry = manifest.resolve(name)
    if entry is None:
        return ""
    if entry.id != name:
        return f" (it is an alias of {entry.id!r})"
    origin = next(said.origin for key, said in manifest.said.items() if key[:2] == (entry.kind.name, name))
    return f" (it comes from {origin})"


def _edited(source: ManifestSource, path: Path, edit: Callable[[Text], str]) -> Edit:
    """Return the edit of one of the manifest's files."""
    try:
        before = path.read_bytes()
    except OSError as error:
        raise CannotEdit(f"{path} cannot be read: {error.strerror}") from None
    return _checked(source, path, before, edit(text_of(path, before)))


def _checked(source: ManifestSource, path: Path, before: bytes | None, after: str) -> Edit:
    data = _bytes(before, after)
    read(source, text_of(path, data), needs_secrets=False)
    return Edit(path, before, data)


def _bytes(before: bytes | None, after: str) -> bytes:
    return (_BOM if (before or b"").startswith(_BOM) else b"") + after.encode()


def _lines(data: bytes) -> list[str]:
    r"""Return the lines of a file as `diff` sees them, ended only by \n."""
    return list(io.StringIO(data.decode("utf-8-sig", errors="replace"), newline="\n"))
