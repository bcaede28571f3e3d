"""Services of systemd on Linux: a unit of the user.

See https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html, and systemd.exec for EnvironmentFile.
"""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path
from typing import Final

from localapi.errors import CannotInstall
from localapi.service.agent import PRIVATE, PUBLIC, STOP_SECONDS, Agent, State, last_words, must, run, write

UNIT: Final = "localapi.service"
RESTART_SECONDS: Final = 5


class Systemd:
    """The systemd unit `localapi.service`."""

    def __init__(self) -> None:
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.unit = configuration / "systemd" / "user" / UNIT
        self.variables = configuration / "localapi" / "service.env"

    def files(self, agent: Agent) -> dict[str, str]:
        shown = {str(self.unit): self._text(agent)}
        if agent.variables:
            shown[str(self.variables)] = "".join(f"{name}=(its value)\n" for name in agent.variables)
        return shown

    def install(self, agent: Agent) -> list[str]:
        self._reload()  # raises if this user has no systemd, before anything is written
        if agent.variables:
            lines = [f"{name}={_in_quotes(value)}\n" for name, value in agent.variables.items()]
            write(self.variables, "".join(lines), PRIVATE)
        else:
            self.variables.unlink(missing_ok=True)
        write(self.unit, self._text(agent), PUBLIC)
        self._reload()
        must("systemctl", "--user", "enable", UNIT)
        must("systemctl", "--user", "restart", UNIT, seconds=STOP_SECONDS + 10)
        said = [
            f"installed {self.unit}; it is running, and starts when you log in",
            f"log: journalctl --user -u {UNIT}",
        ]
        if agent.variables:
            said.append(f"the values of {', '.join(agent.variables)} are in {self.variables}, which only you can read")
        if not self._lingers():
            said.append("to keep it running while you are not logged in: loginctl enable-linger")
        return said

    def uninstall(self) -> bool:
        there = self.unit.exists() or self.variables.exists()
        if self.unit.exists():
            must("systemctl", "--user", "disable", "--now", UNIT, seconds=STOP_SECONDS + 10)
        self.unit.unlink(missing_ok=True)
        self.variables.unlink(missing_ok=True)
        if there:
            self._reload()
        return there

    def state(self) -> State:
        if not self.unit.exists():
            return State(installed=False, words="there is no unit")
        done = run("systemctl", "--user", "show", UNIT, "--property=ActiveState,SubState,MainPID,ExecMainStatus")
        if done.returncode != 0:
            raise CannotInstall(f"systemd does not report the state of {UNIT}: {last_words(done)}")
        found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        pid = int(found.get("MainPID") or 0) or None
        words = f"{found.get('ActiveState')} ({found.get('SubState')})"
        if pid is None and found.get("ExecMainStatus", "0") != "0":
            words += f", last exit status {found['ExecMainStatus']}"
        return State(installed=True, running=found.get("ActiveState") == "active", pid=pid, words=words)

    def _text(self, agent: Agent) -> str:
        lines = [
            "[Unit]",
            "Description=localapi, a local model server",
            "",
            "[Service]",
            "Type=exec",
            f"ExecStart={_command_line(agent)}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            f"WorkingDirectory={_specifiers(str(agent.folder))}",
            *([f"EnvironmentFile={_specifiers(str(self.variables))}"] if agent.variables else []),
            "Restart=on-failure",
            f"RestartSec={RESTART_SECONDS}",
            # The server ends its workers itself, once their requests have ended.
            "KillMode=mixed",
            f"TimeoutStopSec={STOP_SECONDS}",
            "",
            "[Install]",
            "WantedBy=default.target",
        ]
        return "\n".join(lines) + "\n"

    def _reload(self) -> None:
        done = run("systemctl", "--user", "daemon-reload")
        if done.returncode != 0:
            raise CannotInstall(
                f"systemd does not manage services for this user ({last_words(done)}); "
                "run `localapi` with the service manager of this machine instead"
            )

    def _lingers(self) -> bool:
        try:
            done = run("loginctl", "show-user", getpass.getuser(), "--property=Linger")
        except (CannotInstall, OSError, KeyError):
            return False
        return done.stdout.strip() == "Linger=yes"


def _command_line(agent: Agent) -> str:
    """Return the command for ExecStart, where $ begins a variable in every word but the first."""
    program, *arguments = agent.command
    return " ".join([_word(program), *(_word(argument.replace("$", "$$")) for argument in arguments)])


def _word(word: str) -> str:
    word = _specifiers(word)
    if re.fullmatch(r"[\w@%+=:,./$-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _in_quotes(value: str) -> str:
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
