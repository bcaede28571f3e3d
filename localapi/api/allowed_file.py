"""Files that a request names, in folders that the manifest allows.

Clients cannot make the server read any other file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localapi.system.threads import aside


async def allowed_file(value: str, folders: Sequence[str]) -> Path | None:
    """Return the file that a path names inside one of the folders, with links resolved; None if there is none."""
    return await aside(lambda: _allowed(value, folders)) if folders else None


async def read_up_to(path: Path, most_bytes: int) -> bytes:
    """Return a file's content, and one byte more than allowed if it is larger. Raise OSError."""

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(most_bytes + 1)

    return await aside(read)


def _allowed(value: str, folders: Sequence[str]) -> Path | None:
    for folder in folders:
        try:
            place = (Path(folder) / value).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            continue
        if place.is_relative_to(Path(folder).resolve()) and place.is_file():
            return place
    return None
