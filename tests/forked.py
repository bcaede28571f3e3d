"""Commands of localapi in forks of a process that has imported them.

To start Python and import what a command needs takes ten times as much processor time as most commands themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localapi.cli.group import COMMANDS, main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, *(f"localapi.cli.{name}" for name in COMMANDS)])
PATIENCE_SECONDS = 120
"""For a machine that is busy with other things; nothing is measured against it."""


def run(
    *arguments: str, folder: Path | None = None, env: Mapping[str, str] | None = None, typed: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in this folder with these variables and no others, and with this standard input."""
    with tempfile.TemporaryDirectory() as files:
        streams = [Path(files, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(typed)
        variables = dict(os.environ if env is None else env)
        process = _CONTEXT.Process(target=_run, args=(arguments, folder or Path.cwd(), variables, streams))
        process.start()
        process.join(PATIENCE_SECONDS)
        status = process.exitcode
        process.kill()
        process.join()
        process.close()
        out, err = (path.read_bytes() for path in streams[1:])
    assert status is not None, f"localapi {' '.join(arguments)} did not end:\n{err.decode()}"
    return subprocess.CompletedProcess(arguments, status, out, err)


def run_text(
    *arguments: str, folder: Path | None = None, env: Mapping[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command as `run` does; its output is text."""
    done = run(*arguments, folder=folder, env=env, typed=typed.encode())
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _run(arguments: tuple[str, ...], folder: Path, variables: dict[str, str], streams: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    encoding, _, errors = variables.get("PYTHONIOENCODING", "utf-8").partition(":")
    for number, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115  # until the process ends
    sys.stdout = open(1, "w", encoding=encoding, errors=errors or "strict", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    sys.argv = ["localapi", *arguments]
    main()
