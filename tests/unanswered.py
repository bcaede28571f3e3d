"""A file that never comes, as on a drive that does not answer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import until


@contextlib.contextmanager
def unanswered(path: Path) -> Iterator[Callable[[], bool]]:
    """Have whoever opens a file wait, as on a drive that does not answer; gives whether they still would.

    Linux has those who open it wait for who has a lease on it, until that one gives it back, or for
    /proc/sys/fs/lease-break-time (45 s).
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        pytest.skip("only Linux has leases of files")
    ignoring = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel asks for the lease with it
    file = os.open(path, os.O_RDWR)

    def leased() -> bool:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno == errno.EINVAL:
                pytest.skip("this file system has no leases")
            return False  # somebody reads it just now
        return True

    def waits() -> bool:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except BlockingIOError:
            return True
        return False

    until(leased)
    try:
        yield waits
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, ignoring)
