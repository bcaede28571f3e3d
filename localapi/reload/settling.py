"""Decide when the manifest's files are complete, by observing them until they are unchanged for long enough.

A file that is written in place is empty or truncated for a moment, and may be valid even so. `stillness` returns how
long a file must have been unchanged. It is a pure function of observations; `look` observes.
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
from pathlib import Path
from typing import Final

from localapi.manifest import Manifest

STILL_SECONDS: Final = 0.3
"""Seconds that a file written in place must be unchanged if it does not look half-written."""
DOUBT_SECONDS: Final = 2.0
"""Seconds that a file must be unchanged if it may be half-written; its writer may pause for a second."""
OPEN_SECONDS: Final = 4.0
"""Seconds that a file must be unchanged if a program still has it open for writing; some never close it."""
LONG_SECONDS: Final = 3.0
"""Seconds that files must be unchanged before authentication, or loaded or pinned models, are removed."""
LONG_OPEN_SECONDS: Final = 8.0
LONG_WHOLE_SECONDS: Final = 0.5
MUCH_SHORTER: Final = 0.75
"""Share of the previous size below which a file is much shorter."""
MAX_BYTES: Final = 1024 * 1024
"""Size in bytes above which files, such as models, are compared by size and time instead of content."""


class Loss(Enum):
    """Severity of what a new manifest removes from the active one."""

    NOTHING = auto()
    SETTINGS = auto()
    """A value is missing, or the file is invalid."""
    PROTECTION = auto()
    """Authentication, or models that are loaded or pinned."""


@dataclass(frozen=True)
class Look:
    """Observation of a file."""

    content: bytes | None
    """Content; None if the file does not exist."""
    size: int = 0
    stamp: tuple[int, ...] = ()
    """Identifier of the content, if the content was not read."""
    inode: int = 0
    writing: bool | None = None
    """True if a program has it open for writing; None if the system cannot tell."""
    renamed: bool = False
    """True if, judging by its times, it was renamed after it was written."""

    def says_the_same(self, other: Look) -> bool:
        """Return True if both have the same content."""
        return (self.content, self.stamp) == (other.content, other.stamp)


@dataclass(frozen=True)
class Seen:
    """State of a file after several observations."""

    look: Look
    """Last observation."""
    since: float
    """Time since when it has had this content."""
    whole: bool = False
    """True if a new file replaced the old one, instead of being written in place."""
    changes: int = 0
    """Number of changes since the last read. A moment without the file, as when vim saves, does not count."""

    def then(self, look: Look, now: float) -> Seen:
        """Return the state after another observation."""
        if look.says_the_same(self.look):
            return replace(self, look=look)
        both = self.look.content is not None and look.content is not None
        return Seen(look, now, whole=both and look.inode != self.look.inode, changes=self.changes + both)


def stillness(seen: Seen, served: Look | None, loss: Loss) -> float:
    """Return for how many seconds a file must have been unchanged before it is read, and before it is applied.

    `served` is the file when the active revision was read; None if unknown. `loss` is what applying it would remove, as
    far as known.
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
    """Return True if a file looks half-written."""
    if look.content is None or served.content is None:
        return served.content is not None
    if look.size < MUCH_SHORTER * served.size:
        return True
    if look.stamp or served.stamp:
        return False
    cut = served.content.endswith(b"\n") and not look.content.endswith(b"\n")
    return cut or served.content.startswith(look.content)


def loss_of(served: Manifest | None, new: Manifest | None, used: Collection[str]) -> Loss:
    """Return what a new manifest removes; None stands for an invalid one. `used` are the loaded or pinned entries."""
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
    """Observation of the files of one manifest. `files` blocks, and returns the files to observe."""

    def __init__(self, files: Callable[[], Iterable[Path]], clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._seen: dict[Path, Seen] = {}
        self._served: dict[Path, Look] = {}

    def look(self, more: Iterable[Path] = ()) -> bool:
        """Observe the files and `more`. Return True if no content has changed. Blocks."""
        before, self._seen = self._seen, {}
        same = True
        for path in dict.fromkeys([*self._files(), *more]):
            found, known = look(path), before.get(path)
            same = same and known is not None and found.says_the_same(known.look)
            self._seen[path] = Seen(found, self._clock()) if known is None else known.then(found, self._clock())
        return same

    def wait(self, loss: Loss) -> float:
        """Return how many more seconds the files must stay unchanged; 0 if they are complete."""
        now = self._clock()
        return max(
            (stillness(seen, self._served.get(path), loss) - (now - seen.since) for path, seen in self._seen.items()),
            default=0.0,
        )

    def read(self) -> None:
        """Record that the files were read; changes are counted from here."""
        self._seen = {path: replace(seen, changes=0) for path, seen in self._seen.items()}

    def serve(self) -> None:
        """Record that the content at the last look is now active."""
        self._served = {path: seen.look for path, seen in self._seen.items()}


def look(path: Path) -> Look:
    """Observe a file. Blocks, maybe forever on a drive that does not respond."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # opening a pipe would block
            return Look(b"", stamp=(state.st_mode,), inode=state.st_ino)
        with path.open("rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            renamed, writing = state.st_ctime_ns > state.st_mtime_ns, _is_written(file.fileno())
            if state.st_size > MAX_BYTES:
                return Look(b"", state.st_size, (state.st_size, state.st_mtime_ns), state.st_ino, writing, renamed)
            content = b"".join(iter(lambda: file.read(MAX_BYTES), b""))
            return Look(content, len(content), (), state.st_ino, writing, renamed)
    except (FileNotFoundError, NotADirectoryError):
        return Look(None)
    except (OSError, ValueError) as error:  # reading it later reports the error
        return Look(b"", stamp=(getattr(error, "errno", None) or 0,))


def _is_written(descriptor: int) -> bool | None:
    """Return True if a program has the file open for writing; None if unknown, as on macOS and for others' files.

    Linux refuses a read lease on such a file (fcntl(2)). A granted lease is released at once; a writer that opens the
    file in between waits for that.
    """
    if sys.platform != "linux":
        return None
    import fcntl  # noqa: PLC0415  # its names for leases are Linux's

    try:
        # The holder of a lease is told about a writer by SIGIO, which would end this process. SIGURG does nothing.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # another user's file, or a file system without leases
        return None
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
