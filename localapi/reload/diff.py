"""What an edit of the manifest changed, in a line: for the log, and for whoever watches a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

_SIGNS: Final = {"added": "+", "changed": "~", "updated": "=", "removed": "-"}
_MOST_NAMES: Final = 40
"""More of them nobody reads in a line; `/status` has them all."""


def told(entries: Mapping[str, Sequence[str]], *, server: bool) -> str:
    """Return a text such as `+new ~other server` for ids by their change, as in `localapi.reload.reloader.Diff`."""
    words = list(chain.from_iterable([sign + name for name in entries[what]] for what, sign in _SIGNS.items()))
    if len(words) > _MOST_NAMES:
        words = [*words[:_MOST_NAMES], f"and {len(words) - _MOST_NAMES} more"]
    return " ".join(words + ["server"] * server) or "nothing changed"
