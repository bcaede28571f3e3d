"""Output on a terminal as people see it: colours, and a line that changes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fake_hub import hub_with

Terminal = Callable[..., str]
GREEN = "\x1b[32m\x1b[1m✓\x1b[0m"


@pytest.fixture
def terminal(folder: Path, environment: dict[str, str]) -> Terminal:
    """Run the program on a terminal, and give all that it shows there."""

    def terminal(*arguments: str, status: int = 0, **variables: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "localapi", *arguments],
            cwd=folder, env={**environment, "COLUMNS": "80", **variables}, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        with open(ours, "rb", buffering=0) as screen:
            try:
                while data := screen.read(4096):
                    shown += data
            except OSError:
                pass  # so a terminal says that its last program has gone
        assert process.wait(timeout=60) == status, shown.decode()
        return shown.decode()

    return terminal


def test_doctor_shows_colours_where_they_are_wanted(terminal: Terminal, folder: Path) -> None:
    (folder / "models.yaml").write_text("chat: {bird: {backend: echo}}\n")
    shown = terminal("doctor")
    assert f"{GREEN} manifest  models.yaml: valid, 1 model\r\n" in shown
    assert "→ \x1b[1m" in shown
    plain = terminal("doctor", NO_COLOR="1")
    assert "✓ manifest  models.yaml: valid, 1 model" in plain
    assert "\x1b" not in plain


def test_doctor_breaks_its_lines_between_words(terminal: Terminal, folder: Path) -> None:
    (folder / "models.yaml").write_text("chat: {bird: {backend: echo}}\n")
    shown = terminal("doctor", COLUMNS="60", NO_COLOR="1").splitlines()
    server = next(at for at, line in enumerate(shown) if line.startswith("✓ server"))
    assert all(len(line) <= 60 for line in shown if "→" not in line and "/" not in line)
    hub = next(at for at, line in enumerate(shown) if line.startswith("! hub"))
    assert server < hub
    assert shown[hub + 1].startswith(" " * 12)


def test_add_and_plan_speak_in_lines(terminal: Terminal) -> None:
    assert terminal("add", "demo") == "models.yaml: added chat.demo (mlx-lm), in a new file\r\n"
    assert "\x1b[32m+  chat.demo  is new (models.yaml:3)\x1b[0m\r\n" in terminal("plan")


def test_sound_is_not_written_to_a_terminal(terminal: Terminal, folder: Path) -> None:
    (folder / "models.yaml").write_text("speech: {tone: {backend: echo}}\n")
    assert "standard output is a terminal" in terminal("say", "hi", "-o", "-", status=2)


def test_a_download_is_a_line_that_changes(terminal: Terminal, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "model.safetensors").write_bytes(bytes(3_000_000))
    with hub_with({"me/model": repository}) as hub:
        shown = terminal("pull", "me/model", HF_ENDPOINT=hub.url)
    plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", shown)
    *_, last = plain.partition("\r\n")[0].split("\r")
    assert last.startswith("━" * 24 + " me/model 3.0/3.0 MB ")
    assert len(last) < 80
