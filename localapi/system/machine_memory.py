"""The machine's memory, in bytes."""

from __future__ import annotations

import os


def total_bytes() -> int:
    """Return all memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Return what new processes can take without swapping."""
    import psutil  # noqa: PLC0415  # a server without workers does not need it

    return int(psutil.virtual_memory().available)


def room_for_models(budget: int | None, share: float) -> int:
    """Return the memory for models: the manifest's budget, or a share of the machine's memory."""
    return int(total_bytes() * share) if budget is None else min(budget, total_bytes())
