"""A manifest told to a person: each value, and where it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from localapi.manifest.entries import Manifest, ServerOptions
from localapi.manifest.origin import KeyPath

_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


@dataclass(frozen=True)
class Row:
    """One value of a manifest."""

    key: str
    """Dotted: chat.local-chat.path."""
    value: str
    origin: str
    """File:line:column, "environment NAME" or "default"."""


def describe(manifest: Manifest) -> list[Row]:
    """Each value that somebody said, in the manifest's order; first the server's plain options, with their defaults.

    Entries' defaults are left out: they would bury what was said.
    """
    rows: dict[KeyPath, Row] = {
        ("server", name): Row(f"server.{name}", _default(name), "default")
        for name in ServerOptions.model_fields
        if isinstance(getattr(ServerOptions(), name), str | float)
    }
    for path, said in manifest.said.items():
        located = _located(manifest, path)
        value = said.text if located in (None, said.text) else f"{said.text} -> {located}"
        rows[path] = Row(".".join(map(str, path)), value, str(said.origin))
    return list(rows.values())


def duration(seconds: float) -> str:
    """As the manifest would write it: 15m, 1h, 90s, forever."""
    if math.isinf(seconds):
        return "forever"
    unit, length = next(((unit, length) for unit, length in _UNITS if seconds and seconds % length == 0), ("s", 1))
    return f"{seconds / length:g}{unit}"


def _default(name: str) -> str:
    value = getattr(ServerOptions(), name)
    if name == "keep_alive":
        return duration(value)
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _located(manifest: Manifest, path: KeyPath) -> str | None:
    """The text that an option became when its entry was located."""
    match path:
        case (_, str(entry_id), str(option)) if entry_id in manifest.entries:
            value = manifest.entries[entry_id].identity.options.get(option)
            return value if isinstance(value, str) else None
    return None
