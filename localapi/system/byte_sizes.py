"""Format numbers of bytes for people. A kB is 2^10 bytes, a MB 2^20 and a GB 2^30, as in the manifest's `8GB`.

The console's `format.js` uses the same format. This module uses only the standard library, because workers need it too.
"""

from __future__ import annotations

from typing import Final

_UNITS: Final = ((2**40, "TB", 3), (2**30, "GB", 3), (2**20, "MB", 2), (2**10, "kB", 2))
"""Factor, unit, and decimals: a tenth of a GB matters, a tenth of 30 MB does not."""


def readable(size: float) -> str:
    """Return a size such as 5.31 GB, 23.4 GB, 512 MB, 1.4 MB, 27 kB or 12 B."""
    for unit, name, digits in _UNITS:
        if size >= unit:
            whole = len(str(int(size / unit)))
            return f"{size / unit:.{max(digits - whole, 0)}f} {name}"
    return f"{size:.0f} B"
