"""Options of models that a worker loads, here or on a node, from a folder or from the Hugging Face Hub."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from localapi.backends import model_path, process
from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.option_types import Install, Revision
from localapi.backends.options import FolderOf, Identity, OptionPath, PathProblem
from localapi.backends.variables import WithVariables
from localapi.backends.worker_engine import WorkerSetup, start_worker
from localapi.environments import Environment
from localapi.errors import LoadFailed, OutOfResources
from localapi.system.os_errors import advise
from localapi.system.threads import aside
from localapi.worker.protocol import Loading


def located_model(field: OptionPath, path: str, folder_of: FolderOf, must_hold: str) -> str:
    """Return an absolute folder, or the name of a repository unchanged. Raise PathProblem."""
    try:
        return model_path.resolve(path, folder_of(field), must_hold=must_hold)
    except ValueError as error:
        raise PathProblem(field, str(error)) from error


class LocalModel(WithVariables):
    """Options of entries with such a model; they precede those of the kind in the order of base classes."""

    must_hold: ClassVar[str] = "config.json"
    """File that the model's folder must contain."""
    path: str
    revision: Revision = None

    def located_model(self, folder_of: FolderOf) -> dict[str, Any]:
        """Return the options that name files, with absolute paths. Raise PathProblem."""
        if self.is_remote:
            path = model_path.on_node(self.path, folder_of("path"))
        else:
            path = located_model("path", self.path, folder_of, self.must_hold)
        return {**self.located_variables(folder_of), "path": path}

    def weight_files(self) -> list[Path]:
        return model_path.weights(self.path, self.revision)

    def repositories(self) -> tuple[tuple[str, str | None], ...]:
        return () if Path(self.path).is_absolute() else ((self.path, self.revision),)

    async def check_present(self) -> None:
        """Raise FilesUnreadable if the folder of a located entry is gone or incomplete."""
        if not self.is_remote:
            await aside(lambda: model_path.check_present([(self.path, self.must_hold)]))


class OwnEnvironment(LocalModel):
    """Options of models whose backend has its own environment, which `localapi install` creates."""

    worker_bytes: ClassVar[int] = 400 * 1024 * 1024
    writes_tokens: ClassVar[bool] = False
    """True if the rate of generated tokens is of interest."""
    install: Install = "manual"

    def identity(self) -> Identity:
        """Return the identity without `install`, which does not change the model."""
        identity = super().identity()
        return replace(identity, options={k: v for k, v in identity.options.items() if k != "install"})

    async def started(self, name: str, engine: str, report: ReportLoading, **more: Any) -> Engine:
        """Start a worker with this engine in the backend's environment.

        `more` are further options. Raise LoadFailed.
        """
        await self.check_present()
        environment = Environment.named(self.backend_name)
        if not environment.ready:
            if self.install == "manual":
                raise LoadFailed(
                    f"The environment of {environment.name} is not installed. Install it: {environment.command} (or "
                    "set `install: auto` for this model)."
                )
            await install(environment, report)
        options: Mapping[str, Any] = {**self.identity().options, **more}
        setup = WorkerSetup(
            interpreter=environment.interpreter,
            max_batch=self.batch_limit,
            writes_tokens=self.writes_tokens,
            variables=await self.variables(),
        )
        return await start_worker(name, engine, options, setup, report)


async def install(environment: Environment, report: ReportLoading) -> None:
    """Install an environment in a separate process, and report each line of output. Raise LoadFailed."""
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
