"""The server as a service of this user's session: launchd's on macOS, systemd's on Linux."""

from __future__ import annotations

import sys
from typing import Final, Protocol

from localapi.service.agent import Agent, State
from localapi.service.launchd import Launchd
from localapi.service.systemd import Systemd

__all__ = ["Agent", "State", "System", "system"]

PLATFORM: Final = sys.platform


class System(Protocol):
    """What starts programs here. What it cannot do raises CannotInstall."""

    def files(self, agent: Agent) -> dict[str, str]:
        """What would be written: texts by their paths, without secrets."""

    def install(self, agent: Agent) -> list[str]:
        """Write the files and start the server, in place of one that was installed before; what to tell a person."""

    def uninstall(self) -> bool:
        """End the server and delete the files; whether there was anything."""

    def state(self) -> State:
        """How it is."""


def system() -> System:
    """That of this machine."""
    return Launchd() if PLATFORM == "darwin" else Systemd()
