"""Start the process of a worker, and make the socket pair that leads to it."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from localapi.backends import process
from localapi.backends.process import ChildProcess
from localapi.errors import OutOfResources
from localapi.system import openblas_library
from localapi.system.os_errors import advise
from localapi.worker import protocol

BOOTSTRAP = Path(protocol.__file__).parent.with_name("bootstrap.py")
_OF_THIS_PYTHON = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"})


async def spawn(
    on_line: Callable[[str], None],
    interpreter: Path | None = None,
    *,
    env: Mapping[str, str] = MappingProxyType({}),
    hide: Iterable[str] = (),
) -> tuple[ChildProcess, StreamReader, StreamWriter]:
    """Start a worker and return its process and our end of its socket. Raise OutOfResources.

    `on_line` gets the lines of its output, without the secrets in `hide`; `interpreter` is the Python of another
    environment. `env` is added to the server's own variables.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise OutOfResources(f"No socket for a worker could be made: {advise(error)}.", number=error.errno) from error
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)  # first: after the process nothing may be cancelled
        try:
            child = await process.start(
                *(*_command(interpreter), "--fd", str(theirs.fileno())),
                on_line=on_line,
                fds=[theirs.fileno()],
                env={**_variables(interpreter), **env},
                hide=hide,
            )
        except BaseException as error:
            writer.close()
            if isinstance(error, OSError):
                raise OutOfResources(
                    f"No worker process could be started: {advise(error)}.", number=error.errno
                ) from error
            raise
    return child, reader, writer


def _command(interpreter: Path | None) -> tuple[str, ...]:
    """Return the worker's command line, without its socket."""
    if interpreter is None:
        return sys.executable, "-P", "-m", "localapi.worker"  # -P: no module of the current folder
    return str(interpreter), "-I", "-u", str(BOOTSTRAP)


def _variables(interpreter: Path | None) -> dict[str, str]:
    """Return a worker's environment. Another Python is not told where this server's packages are."""
    kept = {k: v for k, v in process.inherited().items() if interpreter is None or k not in _OF_THIS_PYTHON}
    library = openblas_library.package_library() if interpreter is not None else None
    if library is not None:  # environments have none of their own
        kept.setdefault(openblas_library.SWITCH, str(library))
    return {**kept, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
