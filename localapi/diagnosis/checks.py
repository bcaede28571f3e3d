"""All checks, in the order of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from localapi.diagnosis import engines, machine, models, network
from localapi.diagnosis.finding import Check

CHECKS: Final[Mapping[str, Check]] = {
    "python": machine.python,
    "mlx": machine.mlx,
    "memory": machine.memory,
    "disk": machine.disk,
    "backends": engines.backends,
    "uv": engines.uv,
    "player": engines.player,
    "manifest": models.manifest,
    "models": models.files,
    "server": network.server,
    "hub": network.hub,
    "service": machine.service,
}
