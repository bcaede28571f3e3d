"""Run a program so that nothing of it outlives the server: `python -I guard.py FD`.

FD is the end of a socket pair, whose other end the server holds. The server first sends what to start as a line of
JSON, and receives the process id or the number of the error as another line. A byte after that asks the program to end;
the end of the connection, for whatever reason, kills the program with everything that it has started. When the program
ends by itself, what it has left behind is killed too, and this process ends as the program did.

Third-party programs know no such connection, and may start processes in sessions of their own. On Linux, this process
becomes the parent of orphaned processes, so it finds them; elsewhere it finds them by a variable in their environment.
Apart from psutil, which is imported only at the end, this uses only the standard library, so that this process stays
small.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import psutil

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
"""Constants from linux/prctl.h."""
MARK: Final = "LOCALAPI_PROGRAM"
"""Variable in the environment of a program and of everything that it starts; its value is unique."""
KILL_SECONDS: Final = 5.0
"""Time limit for processes to disappear after they were killed."""


def main() -> None:
    """Start the program, obey the server, and end as the program ends."""
    connection = int(sys.argv[1])
    with open(connection, "rb", closefd=False) as stream:  # nothing follows the line before the reply
        line = stream.readline()
    if not line:
        return  # the server has given up
    start = json.loads(line)
    # Handlers, which a program does not inherit, instead of SIG_IGN, which it does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        # A stopped process does not notice the end of the connection, so the end of the server wakes it up.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGCONT)

    def end_with_guard() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    try:
        program = subprocess.Popen(  # noqa: S603  # the command of the manifest, without a shell
            start["command"],
            env=start["env"],
            cwd=start["cwd"],
            stdin=subprocess.DEVNULL,
            preexec_fn=end_with_guard,  # noqa: PLW1509  # there is only one thread yet
        )
    except OSError as error:
        os.write(connection, json.dumps({"errno": error.errno}).encode() + b"\n")
        os._exit(1)
    os.write(connection, json.dumps({"pid": program.pid}).encode() + b"\n")
    mark = start["env"][MARK]
    threading.Thread(target=_obey, args=(connection, mark), daemon=True).start()
    status = _wait_for(program.pid)
    _kill_all(mark)
    _end_like(status)


def _obey(connection: int, mark: str) -> None:
    """Ask the program to end for each byte received, and kill everything at the end of the connection."""
    with contextlib.suppress(OSError):
        while os.read(connection, 1):
            os.killpg(os.getpgrp(), signal.SIGTERM)
    _kill_all(mark)
    os._exit(0)


def _wait_for(pid: int) -> int:
    """Reap every process that ends, until that one has; return its exit status, or the negative number of a signal."""
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:  # the other thread has killed and reaped it
            return -signal.SIGKILL
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _end_like(status: int) -> None:
    if status >= 0:
        os._exit(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left its own, if it may
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    os._exit(128 - status)


def kill(find: Callable[[], set[psutil.Process]]) -> bool:
    """Kill the processes that `find` finds, until it finds none. Blocks.

    Return False if some remain after KILL_SECONDS, as those that wait for a device may.
    """
    import psutil  # noqa: PLC0415  # only needed at the end

    deadline = time.monotonic() + KILL_SECONDS
    while left := find():
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=0.5)
        if time.monotonic() > deadline:
            return False
    return True


def marked(mark: str) -> set[psutil.Process]:
    """Return the other processes with this mark in their environment. Blocks: it reads all processes."""
    import psutil  # noqa: PLC0415

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # processes of other users
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.add(process)
    return found


def _kill_all(mark: str) -> None:
    import psutil  # noqa: PLC0415

    kill(lambda: marked(mark) | set(psutil.Process().children(recursive=True)))


if __name__ == "__main__":
    main()
