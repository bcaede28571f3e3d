"""Amounts of bytes as people read them. A kB is 2^10 bytes, a MB 2^20 and a GB 2^30, as in the manifest's `8GB`.

The page's `format.js` writes them in the same way. The standard library alone: workers use it, too.
"""

from __future__ import annotations

from typing import Final

_UNITS: Final = ((2**40, "TB", 3), (2**30, "GB", 3), (2**20, "MB", 2), (2**10, "kB", 2))
"""And how many digits say enough: a tenth of a GB is much, a tenth of 30 MB is little."""


def readable(size: float) -> str:
    """5.31 GB, 23.4 GB, 512 MB, 1.4 MB, 27 kB, 12 B."""
    for unit, name, digits in _UNITS:
        if size >= unit:
            whole = len(str(int(size / unit)))
            return f"{size / unit:.{max(digits - whole, 0)}f} {name}"
    return f"{size:.0f} B"
