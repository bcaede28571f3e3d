"""Watch the files of the manifest and of its entries for changes, however they are saved, replaced or linked.

Folders are watched instead of files: after an editor's atomic save, a watch on the old file would see no more changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from localapi.manifest import ManifestSource
from localapi.manifest.including import matches
from localapi.system.folders import WorkingFolder
from localapi.system.threads import aside

log = logging.getLogger(__name__)

State = dict[Path, tuple[int, ...]]
Place = tuple[Path, str]
"""Folder, and the name in it on which a file depends."""

MAX_LINKS = 40
"""Maximum number of links to follow, as on Linux."""
LOOK_SECONDS = 2.0
LISTEN_AGAIN_SECONDS = 60.0
SETTLE_SECONDS = 0.5
"""Seconds until a new watch reports everything."""


def places(path: Path) -> set[Place]:
    """Return the places that an absolute path depends on: its own, and that of each link on the way to it.

    If a folder is missing or unreadable, the place is the nearest existing folder above it, in which it would appear.
    """
    found: set[Place] = set()
    todo = [path]
    while todo and len(found) < MAX_LINKS:
        place = todo.pop()
        while not os.path.isdir(place.parent):  # Path's own method raises if the drive is missing, or access is denied
            place = place.parent
        if (place.parent, place.name) in found:
            continue
        found.add((place.parent, place.name))
        with contextlib.suppress(OSError):  # not a link, or an editor is just replacing it
            target = place.parent / place.readlink()
            todo.append(target)
            # A link may lead through another one beside it (..data/models.yaml, as Kubernetes mounts them).
            todo += [folder for folder in target.parents if folder.parent == place.parent and folder.is_symlink()]
    return found


class Watch:
    """Watch of the files of the manifest and of its entries.

    It calls `changed` for every change, and sometimes without one.
    """

    def __init__(
        self, source: Callable[[], ManifestSource], changed: Callable[[], None], folder: WorkingFolder
    ) -> None:
        """Create a watch; `source` may return another value after `look_anew`."""
        self._source = source
        self._folder = folder
        self._changed = changed
        self._more: frozenset[Path] = frozenset()
        self._known: State = {}
        """State of the files when `changed` was last called."""
        self._stop = asyncio.Event()

    def follow(self, files: Iterable[Path]) -> None:
        """Set the files of entries to watch from now on."""
        if (more := frozenset(files)) != self._more:
            self._more = more
            self.look_anew()

    def look_anew(self) -> None:
        """Watch the files of the source that `source` returns now."""
        self._stop.set()

    async def run(self) -> None:
        """Watch forever: listen to the system, and also poll, because network drives report nothing."""
        while True:
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._listen(), name="listen for changes")
                    both.create_task(self._look(), name="look for changes")
            except Exception:  # a bug of ours, or no thread can be started; watching must go on
                log.exception("the manifest's files could not be watched; retrying in %g s", LISTEN_AGAIN_SECONDS)
                await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def _listen(self) -> None:
        told = ""
        while True:
            self._stop = asyncio.Event()
            watched = await aside(self._places)
            try:
                await self._until_places_move(watched)
            except Exception as raised:
                error = _cause(raised)
                if not isinstance(error, OSError | RuntimeError):
                    raise
                if await aside(self._places) != watched:  # a folder disappeared before it was watched
                    await asyncio.sleep(SETTLE_SECONDS)
                    continue
                folders = ", ".join(sorted({str(folder) for folder, _ in watched}))
                message = f"the system does not report changes in {folders} ({error})"
                if message != told:
                    log.warning("%s; the files are checked every %g s instead", message, LOOK_SECONDS)
                told = message
                await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def _look(self) -> None:
        """Call `changed` for changes that the system did not report, once two looks see the same."""
        before = self._known = await aside(self._state)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = await aside(self._state)
            if now == before != self._known:
                self._known = now
                self._changed()
            before = now

    async def _until_places_move(self, watched: dict[Place, int]) -> None:
        stop = self._stop
        changes = awatch(
            *{folder for folder, _ in watched},
            watch_filter=lambda _, path: _is_watched(Path(path), watched),
            recursive=False,
            stop_event=stop,
            debounce=200,
            step=50,
        )
        # Changes before this watch is active are found by reading once more when it becomes active.
        settled = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._changed)
        try:
            async with aclosing(changes):
                async for _ in changes:
                    self._known = await aside(self._state)
                    self._changed()
                    if await aside(self._places) != watched:
                        return
        finally:
            stop.set()
            settled.cancel()

    def _state(self) -> State:
        """Return time, size and inode of each file. Blocks, maybe forever if a network drive is away."""
        self._folder.return_to_it()
        found: State = {}
        for path in (*self._source().files(), *self._more):
            found[path] = ()  # it does not exist, or its drive is away
            with contextlib.suppress(OSError):
                state = path.stat()
                found[path] = (state.st_mtime_ns, state.st_size, state.st_ino)
        return found

    def _places(self) -> dict[Place, int]:
        """Return the folders to watch with their inode numbers, because another folder may take the name.

        The manifest's folder is watched by its name in the folder above, where a new one would appear.
        """
        here = self._folder.path
        found = set[Place]().union(*(places(here / path) for path in (*self._source().files(), *self._more)))
        folder = (here / self._source().manifest).parent
        found.add((folder.parent, folder.name))
        for folder, pattern in self._source().patterns():
            found |= places(here / folder / pattern)
            found |= places(here / folder)
        numbers: dict[Place, int] = dict.fromkeys(found, 0)  # 0: the folder is missing
        for folder, name in found:
            with contextlib.suppress(OSError):
                numbers[folder, name] = folder.stat().st_ino
        return numbers


def _is_watched(path: Path, watched: Collection[Place]) -> bool:
    """Return whether a path is in a watched place, whose name may be a pattern."""
    if (path.parent, path.name) in watched:
        return True
    return any(folder == path.parent and matches(path.name, pattern) for folder, pattern in watched)


def _cause(error: Exception) -> Exception:
    """Return the exception of watchfiles' task, which is raised in a group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
