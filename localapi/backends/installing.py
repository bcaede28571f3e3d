"""Install a backend's environment while the server runs, in a separate process that ends with the load."""

from __future__ import annotations

import sys

from localapi.backends import process
from localapi.backends.engine import ReportLoading
from localapi.environments import Environment
from localapi.errors import LoadFailed, OutOfResources
from localapi.system.os_errors import advise
from localapi.worker.protocol import Loading


async def install(environment: Environment, report: ReportLoading) -> None:
    """Install an environment, and report each line of output. Raise LoadFailed."""
    report(Loading(f"installing {environment.name}"))
    try:
        child = await process.start(
            *(sys.executable, "-P", "-m", "localapi.environments", environment.name),
            on_line=lambda line: report(Loading(f"installing {environment.name}: {line}")),
        )
    except OSError as error:
        raise OutOfResources(
            f"{environment.name} could not be installed: {advise(error)}.", number=error.errno
        ) from error
    try:
        status = await child.wait()
    finally:
        await child.close(0)
    if status != 0:
        raise LoadFailed(child.output.last_line or f"{environment.name} could not be installed: exit status {status}")
