"""Edit the manifest's file for others than its editor: look at it, plan a change, save it, take the last one back.

The file stays the truth: a change is for the file with one digest, and refused if the file is another one by then.
All calls block on files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localapi.errors import FileChanged
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

_MOST_KNOWN: Final = 8


@dataclass(frozen=True)
class Look:
    """The manifest's file as it is now."""

    path: Path
    sha256: str | None
    """Digest of the file; None if there is none."""
    written: Sequence[Written]


@dataclass(frozen=True)
class Saved:
    """An edit that was saved here."""

    edit: Edit
    what: str
    at: float
    """Unix time."""


class Editor:
    """Edits of one manifest. `source` and `served` are asked for anew each time."""

    def __init__(self, source: Callable[[], ManifestSource], served: Callable[[], Manifest | None]) -> None:
        self._source = source
        self._served = served
        self._lock = threading.Lock()
        self._known: dict[str | None, list[str]] = {}
        """Lines of the latest versions that were looked at, without secrets, to show what has changed since."""
        self.last: Saved | None = None
        """The last save, if it can be undone."""

    def look(self) -> Look:
        """Return what the file says. Raise ManifestError if it cannot be read or is not YAML."""
        path = self._source().manifest
        content = content_of(path)
        sha256 = digest_of(content)
        self._known.pop(sha256, None)
        self._known[sha256] = _shown(content)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return Look(path, sha256, [] if content is None else written_in(text_of(path, content)))

    def draft(self, patches: Sequence[Patch], sha256: str | None) -> Draft:
        """Return a checked change of the file with this digest. Raise FileChanged, CannotEdit or ManifestError."""
        return changing(self._source(), patches, sha256=sha256, served=self._served())

    def save(self, draft: Draft, what: str) -> Edit:
        """Save a draft. Raise FileChanged or CannotEdit."""
        with self._lock:
            draft.edit.save()
            self.last = Saved(draft.edit, what, time.time())
        return draft.edit

    def last_of(self, sha256: str | None) -> Saved | None:
        """Return the last save if it made the file with this digest and can be undone."""
        last = self.last
        return last if last is not None and last.edit.sha256 == sha256 and last.edit.before is not None else None

    def undo(self, sha256: str) -> Edit:
        """Restore the file as it was before the last save. Raise FileChanged if it has changed since, or CannotEdit."""
        with self._lock:
            last = self.last_of(sha256)
            if last is None or last.edit.before is None:
                raise FileChanged(f"{self._source().manifest} has changed since the last save from here")
            edit = Edit(last.edit.path, last.edit.after, last.edit.before)
            edit.save()
            self.last = None
        return edit

    def changes_since(self, sha256: str | None) -> str:
        """Return what has changed in the file since it had this digest, with secrets hidden; empty if unknown."""
        path = self._source().manifest
        known = self._known.get(sha256)
        return "" if known is None else unified(known, _shown(content_of(path)), str(path))


def _shown(content: bytes | None) -> list[str]:
    return [] if content is None else shown_lines(content.decode("utf-8-sig", errors="replace"))
