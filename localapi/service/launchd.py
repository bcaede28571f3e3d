"""Services of launchd on macOS: an agent of the logged-in user.

https://developer.apple.com/library/archive/documentation/MacOSX/Conceptual/BPSystemStartup/Chapters/CreatingLaunchdJobs.html
and the manual pages launchd.plist(5) and launchctl(1).
"""

from __future__ import annotations

import os
import plistlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from localapi.errors import CannotInstall
from localapi.service.agent import PRIVATE, PUBLIC, STOP_SECONDS, Agent, State, last_words, must, run, write

LABEL: Final = "localapi"
SETTLE_SECONDS: Final = STOP_SECONDS + 10.0
LOOK_SECONDS: Final = 0.2
IN_PROGRESS: Final = 36
"""Exit status of bootout while the server is still finishing its requests."""


class Launchd:
    """The launchd agent `localapi`."""

    def __init__(self) -> None:
        self.plist = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.log = Path.home() / "Library" / "Logs" / "localapi.log"
        self._domain = f"gui/{os.getuid()}"

    def files(self, agent: Agent) -> dict[str, str]:
        shown = {name: f"(the value of {name})" for name in agent.variables}
        return {str(self.plist): self._text(agent, shown)}

    def install(self, agent: Agent) -> list[str]:
        run("launchctl", "version")  # raises if it is missing, before anything is written
        write(self.plist, self._text(agent, agent.variables), PRIVATE if agent.variables else PUBLIC)
        self._bootout()
        must("launchctl", "bootstrap", self._domain, str(self.plist))
        said = [f"installed {self.plist}; it is running, and starts when you log in", f"log: {self.log}"]
        if agent.variables:
            said.append(f"the values of {', '.join(agent.variables)} are in {self.plist}, which only you can read")
        return said

    def uninstall(self) -> bool:
        there = self.plist.exists() or self._printed() is not None
        self._bootout()
        self.plist.unlink(missing_ok=True)
        return there

    def state(self) -> State:
        printed = self._printed()
        if printed is None:
            return State(self.plist.exists(), words="launchd has not loaded it")
        found = dict(re.findall(r"(?m)^\t([\w ]+) = (.+)$", printed))
        pid = int(found["pid"]) if found.get("pid", "").isdigit() else None
        words = found.get("state", "loaded")
        if pid is None and (code := found.get("last exit code")):
            words += f", last exit code {code}"
        return State(installed=True, running=pid is not None, pid=pid, words=words)

    def _text(self, agent: Agent, variables: Mapping[str, str]) -> str:
        content: dict[str, Any] = {
            "Label": LABEL,
            "ProgramArguments": list(agent.command),
            "WorkingDirectory": str(agent.folder),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ProcessType": "Interactive",
            "ExitTimeOut": STOP_SECONDS,
            "StandardOutPath": str(self.log),
            "StandardErrorPath": str(self.log),
        }
        if variables:
            content["EnvironmentVariables"] = dict(variables)
        return plistlib.dumps(content, sort_keys=False).decode()

    def _printed(self) -> str | None:
        """Return launchd's description of the agent, or None if the agent is unknown to it."""
        done = run("launchctl", "print", f"{self._domain}/{LABEL}")
        return done.stdout if done.returncode == 0 else None

    def _bootout(self) -> None:
        """Unload the agent if it is loaded, and wait, because launchd refuses a second agent with the same name."""
        if self._printed() is None:
            return
        done = run("launchctl", "bootout", f"{self._domain}/{LABEL}", seconds=SETTLE_SECONDS)
        if done.returncode not in (0, IN_PROGRESS):
            raise CannotInstall(f"the running service could not be stopped: {last_words(done)}")
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._printed() is not None:
            if time.monotonic() > deadline:
                raise CannotInstall(f"the running service did not stop within {SETTLE_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)
