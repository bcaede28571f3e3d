"""Find the files that a manifest's file leads to, whether or not the file is valid, to watch them for changes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from pathlib import Path

from localapi.backends.secret import DOTENV
from localapi.errors import ManifestError
from localapi.manifest.references import mentions_variables
from localapi.manifest.text import read_text


def followed(files: Iterable[Path]) -> tuple[Path, ...]:
    """Return these files, and `.env` if one of them refers to variables. Blocks."""
    found = list(dict.fromkeys(files))
    if any(_mentions_variables(path, _stamp(path)) for path in found):
        found.append(DOTENV)
    return tuple(found)


def _stamp(path: Path) -> tuple[int, ...]:
    with contextlib.suppress(OSError, ValueError):
        state = path.stat()
        return (state.st_mtime_ns, state.st_size, state.st_ino)
    return ()


@functools.lru_cache(maxsize=256)
def _mentions_variables(path: Path, stamp: tuple[int, ...]) -> bool:
    """Return whether a file, which is read again only if its stamp changes, refers to variables."""
    del stamp
    try:
        return mentions_variables(read_text(path).text)
    except ManifestError:
        return False
