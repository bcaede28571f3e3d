"""Write speech to a file, a pipe, or a program that plays it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from localapi.errors import OperatorError
from localapi.system.atomic_file import replacing

FORMATS: Final = ("mp3", "opus", "aac", "flac", "wav", "pcm")
SUFFIXES: Final = {**{f".{name}": name for name in FORMATS}, ".ogg": "opus"}
PLAYERS: Final = (
    ("afplay",),
    ("paplay",),
    ("pw-play",),
    ("aplay", "-q"),
    ("ffplay", "-nodisp", "-autoexit", "-v", "0"),
)
"""Programs that play a file, with their options; the first installed one is used."""


class NothingSaid(OperatorError):
    """The speech cannot be written or played."""


def format_of(path: Path) -> str:
    """Return the format for a file's suffix. Raise NothingSaid if it is unknown."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(SUFFIXES)
        raise NothingSaid(f"{path} has no known suffix ({known}); change it, or give --format") from None


def write(pieces: Iterator[bytes], path: Path, progress: Callable[[int], None]) -> None:
    """Write the speech to a file, which appears when it is complete; a device or a named pipe gets it as it arrives.

    `progress` is called with the bytes so far.
    """
    special = path.exists() and not path.is_file()
    try:
        with path.open("wb") if special else replacing(path, mode=None) as out:
            written = 0
            for piece in pieces:
                written += out.write(piece)
                progress(written)
    except OSError as error:
        raise NothingSaid(f"{path} cannot be written: {error.strerror}") from error


def pipe(pieces: Iterator[bytes], out: BinaryIO) -> None:
    """Write the speech to a pipe as it arrives."""
    for piece in pieces:
        out.write(piece)
        out.flush()


def play(pieces: Iterator[bytes]) -> None:
    """Play a WAV file when it is complete. Raise NothingSaid if no player is available."""
    player = next((player for player in PLAYERS if shutil.which(player[0])), None)
    if player is None:
        names = ", ".join(player[0] for player in PLAYERS)
        raise NothingSaid(f"no program that plays sound was found ({names}); write a file with --output FILE")
    with tempfile.TemporaryDirectory(prefix="localapi-") as folder:
        path = Path(folder) / "said.wav"
        write(pieces, path, lambda _: None)
        played = subprocess.run([*player, str(path)], check=False, stdout=sys.stderr, stderr=subprocess.PIPE)  # noqa: S603
    if played.returncode != 0:
        said = played.stderr.decode(errors="replace").strip().splitlines()
        reason = said[0] if said else f"it ended with exit status {played.returncode}"
        raise NothingSaid(f"{player[0]} cannot play sound here ({reason}); write a file with --output FILE")
