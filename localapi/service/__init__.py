"""Run the server as a service of this user's session: with launchd on macOS, systemd on Linux."""

from __future__ import annotations

import sys
from typing import Final, Protocol

from localapi.service.agent import Agent, State
from localapi.service.launchd import Launchd
from localapi.service.systemd import Systemd

__all__ = ["Agent", "State", "System", "system"]

PLATFORM: Final = sys.platform


class System(Protocol):
    """Service manager of the system. All methods raise CannotInstall if they fail."""

    def files(self, agent: Agent) -> dict[str, str]:
        """Return the texts of the files to write, by path, without secrets."""

    def install(self, agent: Agent) -> list[str]:
        """Write the files, and start the server in place of a previous service. Return lines to print."""

    def uninstall(self) -> bool:
        """Stop the server and delete the files. Return True if there was a service."""

    def state(self) -> State:
        """Return the state of the service."""


def system() -> System:
    """Return the service manager of this machine."""
    return Launchd() if PLATFORM == "darwin" else Systemd()
