"""What a service runs, and how it is; the same for every system that starts services."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from localapi.errors import CannotInstall
from localapi.system.whole_file import write_whole

SECONDS: Final = 30.0
"""How long launchctl or systemctl may take. To end the server takes as long as its requests do."""
STOP_SECONDS: Final = 120
PRIVATE: Final = 0o600
PUBLIC: Final = 0o644


@dataclass(frozen=True)
class Agent:
    """The server as it is to be started."""

    command: Sequence[str]
    """The interpreter, absolute, and its arguments."""
    folder: Path
    """Where it is started, and where it looks for `.env`."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of its environment; they may be secrets."""

    def __post_init__(self) -> None:
        """Raises CannotInstall for a path that would end a line in the service's file."""
        for text in (*self.command, str(self.folder)):
            if any(character < " " for character in text):
                raise CannotInstall(f"{text!r} holds a control character, which a service's file cannot: rename it")


@dataclass(frozen=True)
class State:
    """How a service is."""

    installed: bool
    running: bool = False
    pid: int | None = None
    words: str = ""
    """What the system says of it."""


def run(*command: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """What a program of the system says and how it ends. Raises CannotInstall where it is missing or hangs."""
    if shutil.which(command[0]) is None:
        raise CannotInstall(f"there is no {command[0]} on this machine, so nothing here starts services for localapi")
    try:
        return subprocess.run(  # noqa: S603  # our own arguments
            command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"`{' '.join(command)}` did not end within {seconds:g} s") from None
    except OSError as error:
        raise CannotInstall(f"{command[0]} cannot be run: {error.strerror}") from None


def must(*command: str, seconds: float = SECONDS) -> None:
    """Run it. Raises CannotInstall with its last words where it fails."""
    done = run(*command, seconds=seconds)
    if done.returncode != 0:
        raise CannotInstall(f"`{' '.join(command)}` failed: {last_words(done)}")


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Of a program that failed."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode}"


def write(path: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all. Raise CannotInstall."""
    try:
        write_whole(path, text.encode(), mode=mode)
    except OSError as error:
        raise CannotInstall(f"{path} cannot be written: {error.strerror}") from None
