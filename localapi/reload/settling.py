"""When the manifest's files are complete: by what is seen of each, they are read now, or looked at again.

A file that is written in place is for a moment empty, or half of what it is to be, and may be valid so. `stillness`
says how long a file must have been as it is before it is taken at its word. It is a function of what was seen, and
knows no clock and no disk; `look` sees.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from io import FileIO
from pathlib import Path
from typing import Final

from localapi.manifest import Manifest

STILL_SECONDS: Final = 0.3
"""For a file written in place, of which nothing suggests that it is half of one."""
DOUBT_SECONDS: Final = 2.0
"""Where it may be half of one: pauses of a second must not show."""
OPEN_SECONDS: Final = 4.0
"""Where a program still has it open for writing; some never close it."""
LONG_SECONDS: Final = 3.0
"""Before it takes away authentication, or models that are loaded or pinned."""
LONG_OPEN_SECONDS: Final = 8.0
LONG_WHOLE_SECONDS: Final = 0.5
MUCH_SHORTER: Final = 0.75
"""Of its length before."""
MAX_BYTES: Final = 1024 * 1024
"""Of larger files, which are no text of the manifest, size and time stand for what they hold."""


class Loss(Enum):
    """What a manifest takes from the one that serves."""

    NOTHING = auto()
    SETTINGS = auto()
    """Something that was said is not said any more; or the file says nothing valid."""
    PROTECTION = auto()
    """Authentication, or models that are loaded or pinned."""


@dataclass(frozen=True)
class Look:
    """A file at one moment."""

    content: bytes | None
    """None: there is no such file."""
    size: int = 0
    stamp: tuple[int, ...] = ()
    """Stands for the content where that was not read."""
    inode: int = 0
    writing: bool | None = None
    """Whether a program has it open for writing; None where the system does not tell."""
    renamed: bool = False
    """Whether it got its name after its content, as far as its times tell."""

    def says_the_same(self, other: Look) -> bool:
        """Whether both are of one content."""
        return (self.content, self.stamp) == (other.content, other.stamp)


@dataclass(frozen=True)
class Seen:
    """What is known of a file by the looks at it."""

    look: Look
    """The last one."""
    since: float
    """When it was first seen to say what it says."""
    whole: bool = False
    """Whether what it says took the place of another file, instead of being written into that."""
    changes: int = 0
    """Since the manifest was last read; that it was gone for a moment, as when vim saves, is none."""

    def then(self, look: Look, now: float) -> Seen:
        """Return what is known after another look."""
        if look.says_the_same(self.look):
            return replace(self, look=look)
        both = self.look.content is not None and look.content is not None
        return Seen(look, now, whole=both and look.inode != self.look.inode, changes=self.changes + both)


def stillness(seen: Seen, served: Look | None, loss: Loss) -> float:
    """How many seconds a file must have been as it is, before it is read, and before what it says is applied.

    `served` is the file as it was when the revision that serves was read; None where it was not known then. `loss` is
    what applying it would take away, as far as that is known.
    """
    look, protects = seen.look, loss is Loss.PROTECTION
    if served is not None and look.says_the_same(served):
        return 0.0
    if look.writing:
        return LONG_OPEN_SECONDS if protects else OPEN_SECONDS
    if served is None:
        return STILL_SECONDS if seen.changes else 0.0
    if seen.whole and (look.writing is False or look.renamed):
        return LONG_WHOLE_SECONDS if protects else 0.0
    if protects:
        return LONG_SECONDS
    in_pieces = seen.changes > 1
    return DOUBT_SECONDS if loss is Loss.SETTINGS or in_pieces or may_be_half(look, served) else STILL_SECONDS


def may_be_half(look: Look, served: Look) -> bool:
    """Whether a file looks as if its writing had only begun."""
    if look.content is None or served.content is None:
        return served.content is not None
    if look.size < MUCH_SHORTER * served.size:
        return True
    if look.stamp or served.stamp:
        return False
    cut = served.content.endswith(b"\n") and not look.content.endswith(b"\n")
    return cut or served.content.startswith(look.content)


def loss_of(served: Manifest | None, new: Manifest | None, used: Collection[str]) -> Loss:
    """Return what a new manifest removes; None is an invalid one. `used` are the loaded or pinned entries."""
    if new is None or served is None:
        return Loss.NOTHING if new is not None else Loss.SETTINGS
    gone = served.said.keys() - new.said.keys()
    if any(entry_id not in new.entries for entry_id in used) or any(key[:2] == ("server", "api_keys") for key in gone):
        return Loss.PROTECTION
    cut = any(
        key in new.said and new.said[key].text != old.text and old.text.startswith(new.said[key].text.removesuffix("]"))
        for key, old in served.said.items()
    )
    return Loss.SETTINGS if gone or cut else Loss.NOTHING


class Settling:
    """Of the files of one manifest. `files` blocks, and names those that are looked at."""

    def __init__(self, files: Callable[[], Iterable[Path]], clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._seen: dict[Path, Seen] = {}
        self._served: dict[Path, Look] = {}

    def look(self, more: Iterable[Path] = ()) -> bool:
        """Look at the files, and at `more`; whether they say what they said before. Blocks."""
        before, self._seen = self._seen, {}
        same = True
        for path in dict.fromkeys([*self._files(), *more]):
            found, known = look(path), before.get(path)
            same = same and known is not None and found.says_the_same(known.look)
            self._seen[path] = Seen(found, self._clock()) if known is None else known.then(found, self._clock())
        return same

    def wait(self, loss: Loss) -> float:
        """How many seconds they still have to be as they are; 0 where they can be taken at their word."""
        now = self._clock()
        return max(
            (stillness(seen, self._served.get(path), loss) - (now - seen.since) for path, seen in self._seen.items()),
            default=0.0,
        )

    def read(self) -> None:
        """Note that the files were read; changes are counted from here."""
        self._seen = {path: replace(seen, changes=0) for path, seen in self._seen.items()}

    def serve(self) -> None:
        """Note that the content at the last look is active now."""
        self._served = {path: seen.look for path, seen in self._seen.items()}


def look(path: Path) -> Look:
    """Look at a file. Blocks, maybe forever on a drive that does not answer."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would keep whoever opens it waiting
            return Look(b"", stamp=(state.st_mode,), inode=state.st_ino)
        with path.open("rb", buffering=0) as file:
            return _look(file)
    except (FileNotFoundError, NotADirectoryError):
        return Look(None)
    except (OSError, ValueError) as error:  # who reads it says what is wrong
        return Look(b"", stamp=(getattr(error, "errno", None) or 0,))


def _look(file: FileIO) -> Look:
    state = os.fstat(file.fileno())
    renamed = state.st_ctime_ns > state.st_mtime_ns
    writing = _is_written(file.fileno())
    if state.st_size > MAX_BYTES:
        return Look(b"", state.st_size, (state.st_size, state.st_mtime_ns), state.st_ino, writing, renamed)
    content = b"".join(iter(lambda: file.read(MAX_BYTES), b""))
    return Look(content, len(content), (), state.st_ino, writing, renamed)


def _is_written(descriptor: int) -> bool | None:
    """Whether a program has the file open for writing; None where nobody tells, as on macOS and of others' files.

    Linux refuses a read lease on such a file (fcntl(2)). One that is given goes back at once: a writer that comes in
    between waits so long.
    """
    if sys.platform != "linux":
        return None
    import fcntl  # noqa: PLC0415  # its names for leases are Linux's

    try:
        # What tells the holder of a lease of a writer is SIGIO, which would end this process. SIGURG does nothing.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # another user's file, or a file system without leases
        return None
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
