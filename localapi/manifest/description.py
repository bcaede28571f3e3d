"""A manifest as a table for people, with the source of each value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from localapi.manifest.entries import Manifest
from localapi.manifest.excerpts import HIDDEN
from localapi.manifest.hidden import is_hidden
from localapi.manifest.origin import KeyPath
from localapi.manifest.server_options import ServerOptions

_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


@dataclass(frozen=True)
class Row:
    """One value of a manifest."""

    key: str
    """Dotted path of the value: chat.local-chat.path."""
    value: str
    origin: str
    """Source of the value: FILE:LINE:COLUMN, "environment NAME" or "default"."""


def describe(manifest: Manifest) -> list[Row]:
    """Return the server's options, including defaults, then each explicit value in manifest order.

    Defaults of entries are omitted, because there are too many.
    """
    rows: dict[KeyPath, Row] = {
        ("server", name): Row(f"server.{name}", _default(name), "default")
        for name in ServerOptions.model_fields
        if isinstance(getattr(ServerOptions(), name), str | float)
    }
    for path, said in manifest.said.items():
        # The server has only places of secrets, and the values in an entry itself have been checked.
        if is_hidden(path) and path[0] != "server" and path[3:]:
            rows[path] = Row(".".join(map(str, path)), HIDDEN, str(said.origin))
            continue
        located = None  # the option's value after its entry was located
        if len(path) == 3 and path[1] in manifest.entries:  # noqa: PLR2004  # section, id, option
            located = manifest.entries[str(path[1])].identity.options.get(str(path[2]))
        value = said.text
        if isinstance(located, str) and located != value:
            value += f" -> {located}"
        rows[path] = Row(".".join(map(str, path)), value, str(said.origin))
    return list(rows.values())


def duration(seconds: float) -> str:
    """Return a duration in the manifest's notation: 15m, 1h, 90s, forever."""
    if math.isinf(seconds):
        return "forever"
    unit, length = next(((unit, length) for unit, length in _UNITS if seconds and seconds % length == 0), ("s", 1))
    return f"{seconds / length:g}{unit}"


def _default(name: str) -> str:
    value = getattr(ServerOptions(), name)
    if name in ("keep_alive", "max_keep_alive"):
        return duration(value)
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
