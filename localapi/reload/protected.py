"""Find changes in an edit that need the admin right, because they concern more than the models themselves.

On a machine with several users, each of them can reach a server on 127.0.0.1. Without keys the server cannot tell them
apart, so an edit over HTTP may not let it start a program, send a secret somewhere, or open it to others.
"""

from __future__ import annotations

from collections.abc import Iterator

from localapi.manifest import Manifest
from localapi.manifest.hidden import is_hidden
from localapi.manifest.interpolation import mentions_variables
from localapi.manifest.origin import KeyPath

_PROTECTED = ("api_keys", "allowed_hosts", "allowed_origins", "cluster", "console_edits", "capture", "traces")


def protected_changes(before: Manifest | None, after: Manifest) -> list[str]:
    """Return the changed keys that protect the machine, as dotted paths."""
    return list(dict.fromkeys(_changes(before, after)))


def _changes(before: Manifest | None, after: Manifest) -> Iterator[str]:
    for name in _PROTECTED:
        old = getattr(before.server, name, None) if before is not None else None
        if before is not None and old != getattr(after.server, name, None):
            yield f"server.{name}"
    for entry in after.declared.values():
        old_entry = before.entries.get(entry.id) if before is not None else None
        same = old_entry is not None and old_entry.identity == entry.identity
        if not same and entry.options.runs_in == "program":
            yield f"{entry.kind.name}.{entry.id}.command"
    for path, said in after.said.items():
        if mentions_variables(said.text) and _text(before, path) != said.text:
            yield ".".join(map(str, path))
        places = {"env", "file"} & {str(part) for part in path[3:]}
        url = (*path[:2], "url")
        moved = _text(before, url) != _text(after, url)
        if places and is_hidden(path[:3]) and (moved or _text(before, path) != said.text):
            yield ".".join(map(str, path))


def _text(manifest: Manifest | None, path: KeyPath) -> str | None:
    said = manifest.said.get(path) if manifest is not None else None
    return said.text if said is not None else None
