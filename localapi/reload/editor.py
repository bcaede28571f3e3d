"""Edit the manifest's files for the console and other clients: read them, plan a change, save it, undo the last one.

The files are authoritative: a change is made for one file with one digest, and refused if the file has changed. All
calls block on files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.errors import CannotEdit, FileChanged
from localapi.manifest import (
    Draft,
    Edit,
    Manifest,
    ManifestSource,
    Patch,
    Written,
    changing,
    content_of,
    digest_of,
    shown_lines,
    text_of,
    unified,
    written_in,
)

_MOST_KNOWN: Final = 200
"""Number of versions whose lines are kept: as many as a manifest may have files, and a few more."""
_LONGEST_NAME: Final = 200


@dataclass(frozen=True)
class Look:
    """One of the manifest's files in its current state."""

    path: Path
    sha256: str | None
    """SHA-256 of the file; None if there is none."""
    written: Sequence[Written]


@dataclass(frozen=True)
class Saved:
    """Edit that was saved here."""

    edit: Edit
    what: str
    at: float
    """Unix time."""


class Editor:
    """Edits of one manifest. `source` and `served` are called anew each time."""

    def __init__(self, source: Callable[[], ManifestSource], served: Callable[[], Manifest | None]) -> None:
        self._source = source
        self._served = served
        self._lock = threading.Lock()
        self._known: dict[tuple[Path, str | None], list[str]] = {}
        """Lines of the latest versions that were read, without secrets, to show later changes."""
        self.last: Saved | None = None
        """Last save, if it can be undone."""

    def look(self) -> list[Look]:
        """Return the content of the manifest and the files that it includes.

        Raise ManifestError if one cannot be read.
        """
        return [self._look(path) for path in self._source().own_files()]

    def _look(self, path: Path) -> Look:
        content = content_of(path)
        sha256 = digest_of(content)
        self._known.pop((path, sha256), None)
        self._known[path, sha256] = _shown(content)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return Look(path, sha256, [] if content is None else written_in(text_of(path, content)))

    def path(self, name: str | None) -> Path:
        """Return one of the manifest's files; None for the manifest itself. Raise CannotEdit for any other file."""
        source = self._source()
        if name is None or name == str(source.manifest):
            return source.manifest
        for path in source.own_files():
            if name == str(path):
                return path
        raise CannotEdit(f"{name[:_LONGEST_NAME]} is not a file of the manifest")

    def draft(self, file: str | None, patches: Sequence[Patch], sha256: str | None) -> Draft:
        """Return a checked change of a file with this digest. Raise FileChanged, CannotEdit or ManifestError."""
        return changing(self._source(), self.path(file), patches, sha256=sha256, served=self._served())

    def save(self, draft: Draft, what: str) -> Edit:
        """Save a draft. Raise FileChanged or CannotEdit."""
        with self._lock:
            draft.edit.save()
            self.last = Saved(draft.edit, what, time.time())
        return draft.edit

    def last_of(self, *digests: str | None) -> Saved | None:
        """Return the last save if it resulted in a file with one of these digests and can be undone."""
        last = self.last
        return last if last is not None and last.edit.sha256 in digests and last.edit.before is not None else None

    def undo(self, sha256: str) -> Edit:
        """Restore the file as before the last save. Raise FileChanged if it has changed since, or CannotEdit."""
        with self._lock:
            last = self.last_of(sha256)
            if last is None or last.edit.before is None:
                raise FileChanged(f"{self._source().manifest} has changed since the last save from here")
            edit = Edit(last.edit.path, last.edit.after, last.edit.before)
            edit.save()
            self.last = None
        return edit

    def changes_since(self, file: str | None, sha256: str | None) -> str:
        """Return the changes in a file since it had this digest, with secrets hidden; empty if unknown."""
        path = self.path(file)
        known = self._known.get((path, sha256))
        return "" if known is None else unified(known, _shown(content_of(path)), str(path))


def _shown(content: bytes | None) -> list[str]:
    return [] if content is None else shown_lines(content.decode("utf-8-sig", errors="replace"))
