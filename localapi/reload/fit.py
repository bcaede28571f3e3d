"""Estimate whether a model fits before it is loaded, by the memory budget, total memory and free memory."""

from __future__ import annotations

from localapi.backends.options import EntryOptions
from localapi.kinds.first_models import first_models
from localapi.manifest import Entry
from localapi.runtime.memory import expected_bytes
from localapi.system.byte_sizes import readable
from localapi.system.memory import available_bytes, total_bytes


def need_of(options: EntryOptions) -> int | None:
    """Return the bytes that a model will need here; None if unknown. Blocks.

    They are computed from its files or, if it is not downloaded, taken from the list of first models.
    """
    if options.is_remote or options.worker_bytes == 0:
        return expected_bytes(options) or None
    listed = {model.repository: model.memory_bytes for model in first_models()}
    if options.stated_memory() is None and not any(True for _ in options.weight_files()):
        named = [listed[name] for name, _ in options.repositories() if name in listed]
        return max(named, default=None)
    return expected_bytes(options) or None


def obstacle_of(entry: Entry, need: int | None, budget: int | None) -> str | None:
    """Return why a model cannot be loaded here, for people; None if no reason is known. Blocks."""
    obstacle = entry.options.obstacle()
    if obstacle is not None or need is None:
        return obstacle
    if budget is not None and need > budget:
        return f"it needs about {readable(need)}, and server.memory_budget is {readable(budget)}"
    if need > total_bytes():
        return f"it needs about {readable(need)}, and this machine has {readable(total_bytes())}"
    return None


def shortage_of(need: int | None) -> str | None:
    """Return a note for people if a model needs more memory than is free at the moment. Blocks."""
    free = available_bytes()
    if need is None or need <= free:
        return None
    return f"it needs about {readable(need)}, and {readable(free)} is free now"
