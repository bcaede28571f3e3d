"""Backends whose packages are in an environment of their own, which `localapi install` makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.installing import install
from localapi.backends.options import Identity
from localapi.backends.variables import WithVariables
from localapi.backends.worker_engine import start_worker
from localapi.environments import Environment
from localapi.errors import LoadFailed


class OwnEnvironment(WithVariables):
    """Options of every such entry, before those of its kind in the order of the bases."""

    worker_bytes: ClassVar[int] = 400 * 1024 * 1024
    install: Annotated[
        Literal["manual", "auto"],
        Field(
            description="If the backend's environment is missing: manual reports it, auto installs it at first load."
        ),
    ] = "manual"

    def identity(self) -> Identity:
        """Return the identity without `install`, which does not change the model."""
        identity = super().identity()
        return replace(identity, options={k: v for k, v in identity.options.items() if k != "install"})

    async def started(self, name: str, engine: str, options: Mapping[str, Any], report: ReportLoading) -> Engine:
        """Start a worker with this engine in the environment of the backend's name. Raise LoadFailed."""
        environment = Environment.named(self.backend_name)
        if not environment.ready:
            if self.install == "manual":
                raise LoadFailed(
                    f"The environment of {environment.name} is not installed. Install it: {environment.command} (or "
                    "set `install: auto` for this model)."
                )
            await install(environment, report)
        return await start_worker(
            name, engine, options, interpreter=environment.interpreter, variables=await self.variables(), report=report
        )
