"""Notices when a file of the manifest, or one that an entry is made of, changes.

Saved in place, replaced by an editor, re-linked, deleted, made again: all of it counts.

The folders are watched, not the files: an editor's atomic save puts another file under the name, and a watch on the old
one would go deaf.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from localapi.manifest import ManifestSource
from localapi.system.threads import aside
from localapi.system.working_directory import WorkingFolder

log = logging.getLogger(__name__)

State = dict[Path, tuple[int, ...]]
Place = tuple[Path, str]
"""A folder, and the name in it on which a file depends."""

MAX_LINKS = 40
"""As many links as Linux follows for one path."""
LOOK_SECONDS = 2.0
LISTEN_AGAIN_SECONDS = 60.0
SETTLE_SECONDS = 0.5
"""By then a new watch hears everything."""


def places(path: Path) -> set[Place]:
    """Return the places that an absolute path depends on: its own, and that of each link on the way to it.

    If a folder is missing or unreadable, the place is the nearest one above it, in which it would appear.
    """
    found: set[Place] = set()
    todo = [path]
    while todo and len(found) < MAX_LINKS:
        place = todo.pop()
        while not os.path.isdir(place.parent):  # Path's own raises where the drive is away, or for want of a right
            place = place.parent
        if (place.parent, place.name) in found:
            continue
        found.add((place.parent, place.name))
        with contextlib.suppress(OSError):  # no link, or an editor is just replacing it
            target = place.parent / place.readlink()
            todo.append(target)
            # A link may lead through another one beside it (..data/models.yaml, as Kubernetes mounts them).
            todo += [folder for folder in target.parents if folder.parent == place.parent and folder.is_symlink()]
    return found


class Watch:
    """Calls `changed` for every change of the manifest's files, and of the files that its entries are made of.

    `changed` may be called when nothing changed, too.
    """

    def __init__(self, source: ManifestSource, changed: Callable[[], None], folder: WorkingFolder) -> None:
        self._source = source
        self._folder = folder
        self._changed = changed
        self._more: frozenset[Path] = frozenset()
        self._known: State = {}
        """How the files looked when `changed` was last called for them."""
        self._stop = asyncio.Event()

    def follow(self, files: Iterable[Path]) -> None:
        """Set the files of entries to watch from now on."""
        if (more := frozenset(files)) != self._more:
            self._more = more
            self._stop.set()

    async def run(self) -> None:
        """Watch, for ever: listen to what the system tells, and look, as network drives tell nothing."""
        while True:
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._listen(), name="listen for changes")
                    both.create_task(self._look(), name="look for changes")
            except Exception:  # ours to mend, or no thread can be started; following the files must go on
                log.exception("the manifest's files could not be watched: again in %g s", LISTEN_AGAIN_SECONDS)
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
                if await aside(self._places) != watched:  # a folder went away while it was to be watched
                    await asyncio.sleep(SETTLE_SECONDS)
                    continue
                folders = ", ".join(sorted({str(folder) for folder, _ in watched}))
                if told != (told := f"the system does not tell of changes in {folders} ({error})"):
                    log.warning("%s: they are looked for every %g s instead", told, LOOK_SECONDS)
                await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    async def _look(self) -> None:
        """Call `changed` for what nobody told: where two looks see the same, and it is not what was known."""
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
            watch_filter=lambda _, path: (Path(path).parent, Path(path).name) in watched,
            recursive=False,
            stop_event=stop,
            debounce=200,
            step=50,
        )
        # What happened before this watch hears is found by reading once more when it does.
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
        """How the files look from outside. Blocks, on a network drive that is away maybe for ever."""
        self._folder.return_to_it()
        return {path: _stamp(path) for path in (*self._source.files(), *self._more)}

    def _places(self) -> dict[Place, int]:
        """Return the folders to watch with their inode numbers, as another folder may take the name.

        The manifest's folder is watched by its name in the folder above, where a new one would appear.
        """
        here = self._folder.path
        found = set[Place]().union(*(places(here / path) for path in (*self._source.files(), *self._more)))
        folder = (here / self._source.manifest).parent
        found.add((folder.parent, folder.name))
        return {(place, name): _number(place) for place, name in found}


def _cause(error: Exception) -> Exception:
    """Return the exception of watchfiles' task, which comes in a group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _number(folder: Path) -> int:
    try:
        return folder.stat().st_ino
    except OSError:
        return 0


def _stamp(path: Path) -> tuple[int, ...]:
    """Of a file that is not there, or whose drive is away: nothing."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_mtime_ns, state.st_size, state.st_ino
