"""Check which model files are missing on this machine: a model without its files is not just unloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal

from localapi.backends.model_path import is_downloaded
from localapi.backends.options import EntryOptions
from localapi.kinds.first_models import first_models
from localapi.manifest import Manifest
from localapi.runtime.instance import Instance
from localapi.runtime.states import StateName
from localapi.system.threads import aside

LOOK_AGAIN_SECONDS: Final = 2.0
Repository = tuple[str, str | None]
"""Name and revision."""
ShownState = StateName | Literal["not_downloaded"]


class Downloads:
    """Result of the last check. `changed` is called when a later check finds something else."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._missing: frozenset[Repository] = frozenset()
        self._known: frozenset[Repository] = frozenset()
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def look(self, manifest: Manifest) -> None:
        """Check the files of a manifest's entries. Blocks, so it is called in a thread."""
        self._look(each for entry in manifest.entries.values() for each in needed(entry.options))

    def state_of(self, options: EntryOptions, instance: Instance) -> ShownState:
        """Return the state of a model for people; `not_downloaded` means unloaded with files missing."""
        state, repositories = instance.state, needed(options)
        if not repositories:
            return state
        if state == "ready":
            self._missing = self._missing.difference(repositories)
            return state
        self._look_soon()
        return "not_downloaded" if state == "unloaded" and self._missing.intersection(repositories) else state

    def bytes_of(self, options: EntryOptions) -> int | None:
        """Return the bytes to download for an entry; None if nothing is missing, or the size is unknown."""
        sizes = {model.repository: model.download_bytes for model in first_models()}
        missing = [name for name, revision in needed(options) if (name, revision) in self._missing]
        if not missing or any(name not in sizes for name in missing):
            return None
        return sum(sizes[name] for name in missing)

    def _look(self, repositories: Iterable[Repository]) -> None:
        first_models()  # the file is read here, and not on the event loop
        known = frozenset(repositories)
        missing = frozenset(each for each in known if not is_downloaded(*each))
        self._known, self._missing, self._looked_at = known, missing, time.monotonic()

    def _look_soon(self) -> None:
        """Check again in a thread, unless that was done a moment ago."""
        is_looking = self._looking is not None and not self._looking.done()
        if not is_looking and time.monotonic() - self._looked_at > LOOK_AGAIN_SECONDS:
            self._looking = asyncio.get_running_loop().create_task(self._look_again(), name="look for downloads")

    async def _look_again(self) -> None:
        before, known = self._missing, self._known
        await aside(lambda: self._look(known))
        if self._missing != before:
            self._changed()


def needed(options: EntryOptions) -> tuple[Repository, ...]:
    """Return the repositories that an entry needs on this machine."""
    return () if options.is_remote else options.repositories()
