"""Notices when a file of the manifest changes: saved in place, replaced by an editor, re-linked, deleted, made again.

The folders are watched, not the files: an editor's atomic save puts another file under the name, and a watch on the old
one would go deaf.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from watchfiles import awatch

from localapi.manifest import ManifestSource

log = logging.getLogger(__name__)

Place = tuple[Path, str]
"""A folder, and the name in it on which a file depends."""

MAX_LINKS = 40
"""As many links as Linux follows for one path."""
SETTLE_SECONDS = 0.5
"""By then a new watch hears everything."""


def places(path: Path) -> set[Place]:
    """What a file depends on: its own place, and that of each link on the way to it.

    Where a folder is missing, the place is the nearest one above it, in which it would appear.
    """
    found: set[Place] = set()
    todo = [path.absolute()]
    while todo and len(found) < MAX_LINKS:
        place = todo.pop()
        while not place.parent.is_dir():
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


async def watch(source: ManifestSource, changed: Callable[[], None]) -> None:
    """Call `changed` for every change, for ever. It may be called when nothing changed, too."""
    while True:
        watched = await asyncio.to_thread(_places_of, source)
        try:
            await _until_places_move(source, watched, changed)
        except (OSError, RuntimeError) as error:
            log.error(  # the cause is in the line
                "cannot watch %s (%s): apply edits with POST /admin/reload, or set WATCHFILES_FORCE_POLLING=1",
                ", ".join(sorted({str(folder) for folder, _ in watched})), error,
            )  # fmt: skip
            return


async def _until_places_move(source: ManifestSource, watched: dict[Place, int], changed: Callable[[], None]) -> None:
    stop = asyncio.Event()
    changes = awatch(
        *{folder for folder, _ in watched},
        watch_filter=lambda _, path: (Path(path).parent, Path(path).name) in watched,
        recursive=False,
        stop_event=stop,
        debounce=200,
        step=50,
    )
    # What happened before this watch hears is found by reading once more when it does.
    settled = asyncio.get_running_loop().call_later(SETTLE_SECONDS, changed)
    try:
        async with aclosing(changes):
            async for _ in changes:
                changed()
                if await asyncio.to_thread(_places_of, source) != watched:
                    return
    finally:
        stop.set()
        settled.cancel()


def _places_of(source: ManifestSource) -> dict[Place, int]:
    """What to watch, with the number of each folder's file system entry: another folder may take its name.

    The manifest's own folder is watched by its name in the folder above, as a new one begins with that.
    """
    found = set[Place]().union(*(places(path) for path in source.files()))
    folder = source.manifest.absolute().parent
    found.add((folder.parent, folder.name))
    return {(place, name): _number(place) for place, name in found}


def _number(folder: Path) -> int:
    try:
        return folder.stat().st_ino
    except OSError:
        return 0
