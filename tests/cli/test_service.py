"""The server as a service, with stand-ins for launchctl and systemctl that really start what they are told."""

from __future__ import annotations

import json
import os
import plistlib
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from localapi import service
from localapi.cli.group import command_named
from localapi.client import Server
from localapi.errors import CannotInstall
from localapi.service import Agent
from localapi.service.launchd import Launchd
from localapi.service.systemd import Systemd

FAKES = Path(__file__).parents[1] / "fakebin"
ECHO = "chat: {bird: {backend: echo}}\n"
ODD = 'a "b" $c %d \\e `f`'


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(autouse=True)
def machine(
    folder: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A home, a manifest in the current folder, and the stand-ins; what was started is ended."""
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    known = tmp_path / "services"
    known.mkdir()
    for name, value in {**environment, "FAKE_SERVICES": str(known)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{FAKES}{os.pathsep}{os.environ['PATH']}")
    odd = folder / "odd 100% $HOME"
    odd.mkdir()
    (odd / "models.yaml").write_text(ECHO)
    monkeypatch.chdir(odd)
    yield known
    if (known / "pid").exists():
        subprocess.run(["kill", "-9", (known / "pid").read_text()], check=False, capture_output=True)


@pytest.fixture(params=["linux", "darwin"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(service, "PLATFORM", request.param)
    return str(request.param)


def localapi(*arguments: str) -> Result:
    return CliRunner().invoke(command_named("service"), list(arguments))


def answers(port: int) -> Server:
    """The server, when it listens."""
    server = Server(f"http://127.0.0.1:{port}")
    deadline = time.monotonic() + 60
    while not server.is_there() and time.monotonic() < deadline:
        time.sleep(0.05)
    return server


def test_an_installed_service_serves_and_an_uninstalled_one_has_ended(
    platform: str, port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAPTOP_KEY", ODD)
    monkeypatch.setenv("ECHO_MODE", "1")  # not asked for, so not passed on
    done = localapi("install", "--port", str(port), "--env", "LAPTOP_KEY", "--profile", "echo")
    assert done.exit_code == 0, done.output
    assert ODD not in done.output
    assert "which only you can read" in done.output
    server = answers(port)
    assert [model["id"] for model in server.get("/v1/models")["data"]] == ["bird"]
    pid = int((tmp_path / "services" / "pid").read_text())
    variables = dict(part.partition("=")[::2] for part in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    assert variables["LAPTOP_KEY"] == ODD
    assert "ECHO_MODE" not in variables
    told = json.loads(localapi("status", "--json", "--port", str(port)).output)
    assert (told["installed"], told["running"], told["pid"], told["answers"]) == (True, True, pid, True)
    assert localapi("install", "--port", str(port)).exit_code == 0  # again, in its place
    assert answers(port).get("/health")
    done = localapi("uninstall")
    assert "uninstalled" in done.output
    assert not server.is_there()
    assert localapi("status").exit_code == 1
    assert "not installed" in localapi("uninstall").output


def test_values_of_variables_stand_in_a_file_for_the_user_only(
    platform: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sesame-open-now")
    localapi("install", "--port", str(port), "--env", "SECRET")
    holding = [file for file in Path.home().rglob("*") if file.is_file() and "sesame-open-now" in file.read_text()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in holding] == [0o600]
    localapi("uninstall")
    assert [file for file in Path.home().rglob("*") if file.is_file() and file.suffix != ".log"] == []


def test_a_dry_run_shows_the_file_and_no_value(platform: str, monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    monkeypatch.setenv("SECRET", "sesame-open-now")
    done = localapi("install", "--env", "SECRET", "--dry-run")
    assert done.exit_code == 0
    assert str(Path.cwd() / "models.yaml").replace("%", "%%").replace("$", "$$") in done.output or platform == "darwin"
    assert "SECRET" in done.output
    assert "sesame" not in done.output
    assert list(machine.iterdir()) == []
    assert [file for file in Path.home().rglob("*") if file.is_file()] == []


def test_a_variable_that_is_not_set_is_named_and_the_others_are_given(
    monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    monkeypatch.setenv("THERE", "yes")
    done = localapi("install", "--env", "NOT_THERE", "--env", "THERE")
    assert done.exit_code == 0
    assert "NOT_THERE is not set" in done.stderr
    written = "".join(file.read_text() for file in Path.home().rglob("*") if file.is_file())
    assert "THERE" in written
    assert "NOT_THERE" not in written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--port", "0"), "needs a fixed port"),
        (("--env", "LINES", "--env", "BYTES"), "the value of LINES, BYTES is not text on one line"),
        (("--profile", "./a\nb.yaml"), "control character"),
        (("--manifest", "nope.yaml"), "does not exist"),
    ],
)
def test_what_could_not_start_is_not_installed(
    arguments: tuple[str, ...], says: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "one\ntwo")
    monkeypatch.setenv("BYTES", "\udcff")
    done = localapi("install", *arguments)
    assert done.exit_code == 1
    assert says in str(done.exception)
    assert list(machine.iterdir()) == []


def test_without_a_bus_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_SERVICES")
    with pytest.raises(CannotInstall, match="systemd") as refused:
        Systemd().install(Agent(["python"], Path("/")))
    assert "\n" not in str(refused.value)
    assert not Systemd().unit.exists()


@pytest.mark.parametrize("kind", [Systemd, Launchd])
def test_without_the_program_there_is_one_clear_line(
    kind: type[Systemd] | type[Launchd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CannotInstall, match=r"^(systemctl|launchctl) "):
        kind().install(Agent(["python"], Path("/")))
    assert [file for file in Path.home().rglob("*") if file.is_file()] == []


def test_the_property_list_is_one_and_says_what_launchd_reads() -> None:
    system = Launchd()
    agent = Agent(["/usr/bin/python", "-m", "localapi", "a b & <c>"], Path("/somewhere"), {"KEY": "secret"})
    ((path, text),) = system.files(agent).items()
    assert path.endswith("/Library/LaunchAgents/localapi.plist")
    told = plistlib.loads(text.encode())
    assert told["ProgramArguments"][-1] == "a b & <c>"
    assert (told["RunAtLoad"], told["KeepAlive"], told["WorkingDirectory"]) == (
        True,
        {"SuccessfulExit": False},
        "/somewhere",
    )
    assert told["EnvironmentVariables"] == {"KEY": "(the value of KEY)"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "a b" / "100%$x"
    python.parent.mkdir()
    python.symlink_to("/bin/true")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    agent = Agent([str(python), 'say "hi" to $HOME'], tmp_path, {"KEY": "secret"})
    text = next(iter(Systemd().files(agent).values()))

    def verified(text: str) -> str:
        unit = tmp_path / "localapi.service"
        unit.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", str(unit)], capture_output=True, text=True, check=False
        )
        return done.stderr if done.returncode == 0 else f"{done.returncode}: {done.stderr}"

    assert "sometimes" in verified(text.replace("on-failure", "sometimes"))
    assert verified(text) == ""
