"""One attempt to load a model: its progress, and its failure in words for people.

It knows neither who waits for it nor earlier attempts.
"""

from __future__ import annotations

import asyncio
import logging

from localapi.backends.engine import Engine, Supervised
from localapi.backends.options import EntryOptions
from localapi.errors import LoadFailed, OutOfResources
from localapi.system.os_errors import advise
from localapi.worker.protocol import Loading

log = logging.getLogger(__name__)


class Load:
    """One attempt to load an instance."""

    task: asyncio.Task[Engine]
    """Task of the load, from reserving memory to the engine. Set by its instance."""

    def __init__(self, name: str, options: EntryOptions) -> None:
        self.progress: Loading | None = None
        self.by: Supervised | None = None
        """Process that loads, if it can be measured and ended."""
        self.has_room = False
        """True if memory is reserved for it. Until then, cancelling it loses nothing."""
        self.detached = False
        """True if it continues even if nobody waits for it."""
        self._name = name
        self._options = options

    async def start(self, *, bounded: bool) -> Engine:
        """Return the loaded engine. `bounded` means that there is a memory budget."""
        log.info("%s: loading", self._name)
        options = self._options.in_bounds() if bounded else self._options
        return await options.start(self._name, self._report)

    def _report(self, progress: Loading, by: Supervised | None = None) -> None:
        if self.progress is None or self.progress.phase != progress.phase:
            log.info("%s: %s", self._name, progress.phase)
        self.progress = progress
        self.by = by

    def failure(self, error: Exception) -> LoadFailed:
        """Return the error for waiting requests, made from the exception that was raised."""
        match error:
            case OSError():
                return OutOfResources(f"The model cannot be loaded now: {advise(error)}.", number=error.errno)
            case LoadFailed():
                return error
            case _:  # a bug
                log.error("%s: the load failed in the server itself", self._name, exc_info=error)
                return LoadFailed(f"The server failed while loading the model ({type(error).__name__}); see its log.")
