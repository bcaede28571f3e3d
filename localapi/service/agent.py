"""Definition and state of a service, for every service manager."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from localapi.errors import CannotInstall
from localapi.system.atomic_file import write_whole

SECONDS: Final = 30.0
"""Time limit for launchctl and systemctl. Stopping the server takes as long as its requests do."""
STOP_SECONDS: Final = 120
PRIVATE: Final = 0o600
PUBLIC: Final = 0o644


@dataclass(frozen=True)
class Agent:
    """Command, folder and environment of the server."""

    command: Sequence[str]
    """Absolute path of the interpreter, and its arguments."""
    folder: Path
    """Working directory, which may contain `.env`."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables, which may be secrets."""

    def __post_init__(self) -> None:
        """Raise CannotInstall for a path with a line break, which would forge a line in the service's file."""
        for text in (*self.command, str(self.folder)):
            if any(character < " " for character in text):
                raise CannotInstall(f"{text!r} contains a control character, which a service cannot have; rename it")


@dataclass(frozen=True)
class State:
    """State of a service."""

    installed: bool
    running: bool = False
    pid: int | None = None
    words: str = ""
    """Description by the service manager."""


def run(*command: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a program of the system, and return its output and status. Raise CannotInstall if it is missing or hangs."""
    if shutil.which(command[0]) is None:
        raise CannotInstall(f"{command[0]} is not on this machine, so localapi cannot be installed as a service")
    try:
        return subprocess.run(  # noqa: S603  # our own arguments
            command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"`{' '.join(command)}` did not finish within {seconds:g} s") from None
    except OSError as error:
        raise CannotInstall(f"{command[0]} cannot be run: {error.strerror}") from None


def must(*command: str, seconds: float = SECONDS) -> None:
    """Run a program of the system. Raise CannotInstall with the end of its output if it fails."""
    done = run(*command, seconds=seconds)
    if done.returncode != 0:
        raise CannotInstall(f"`{' '.join(command)}` failed: {last_words(done)}")


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a failed program's output, or its exit status."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode}"


def write(path: Path, text: str, mode: int) -> None:
    """Write a file completely or not at all. Raise CannotInstall."""
    try:
        write_whole(path, text.encode(), mode=mode)
    except OSError as error:
        raise CannotInstall(f"{path} cannot be written: {error.strerror}") from None
