"""Installing a backend's environment while the server runs: in a process of its own, which ends with the load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from localapi.backends.engine import ReportLoading
from localapi.backends.variables import inherited
from localapi.environments import Environment
from localapi.errors import LoadFailed, OutOfResources
from localapi.system.os_errors import advise
from localapi.worker.protocol import Loading


async def install(environment: Environment, report: ReportLoading) -> None:
    """Make the environment, and report each line of it. Raises LoadFailed."""
    last = ""
    report(Loading(f"installing {environment.name}"))
    try:
        # Its own process group: a cancellation ends uv, too.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "localapi.environments", environment.name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
            env=inherited(),
        )
    except OSError as error:
        raise OutOfResources(f"{environment.name} could not be installed: {advise(error)}.") from error
    try:
        assert process.stdout is not None  # noqa: S101  # it was started with a pipe
        async for line in process.stdout:
            last = line.decode(errors="replace").strip() or last
            report(Loading(f"installing {environment.name}: {last}"))
        status = await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0:
        raise LoadFailed(last or f"{environment.name} could not be installed: exit status {status}")
