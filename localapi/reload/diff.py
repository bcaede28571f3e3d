"""Compare manifests: which entries an edit adds, changes, updates in place, and removes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from localapi.manifest import Manifest

_MOST_NAMES: Final = 40
"""Maximum names in a line; `/status` has all of them."""

Sides = tuple[object, object]
"""The identity of an entry, and its settings."""


@dataclass(frozen=True)
class Diff:
    """Changes of an edit, as entry ids in the manifest's order."""

    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    """Entries with another identity, so another model is loaded."""
    updated: Sequence[str] = ()
    """Entries that differ only in settings, which are applied in place."""
    removed: Sequence[str] = ()
    server: bool = False
    """True if the section `server` or `peers` differs, or the secret of a key."""

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.updated or self.removed or self.server)

    def __str__(self) -> str:
        """Return a line such as `+new ~other server`."""
        words: list[str] = []
        for sign, names in (("+", self.added), ("~", self.changed), ("=", self.updated), ("-", self.removed)):
            words += [sign + name for name in names]
        if len(words) > _MOST_NAMES:
            words = [*words[:_MOST_NAMES], f"and {len(words) - _MOST_NAMES} more"]
        if self.server:
            words.append("server")
        return " ".join(words) or "nothing changed"


def compare(before: Mapping[str, Sides], after: Mapping[str, Sides], *, server: bool = False) -> Diff:
    """Return the difference between entries, given by id."""
    both = [name for name in after if name in before]
    changed = tuple(name for name in both if after[name][0] != before[name][0])
    updated = tuple(name for name in both if name not in changed and after[name][1] != before[name][1])
    added = tuple(name for name in after if name not in before)
    return Diff(added, changed, updated, tuple(name for name in before if name not in after), server)


def diff(old: Manifest | None, new: Manifest) -> Diff:
    """Compare two manifests by the identities and settings of their entries."""
    server = old is not None and (old.server, old.keys, old.peers) != (new.server, new.keys, new.peers)
    return compare(_sides(old) if old else {}, _sides(new), server=server)


def _sides(manifest: Manifest) -> dict[str, Sides]:
    return {entry.id: ((entry.kind, entry.identity), entry.settings) for entry in manifest.entries.values()}
