"""Shell completion, by the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from localapi.cli.group import COMMANDS, main
from tests.server import save

ROOT = Path(__file__).parents[2]
MANIFEST = "chat: {bird: {backend: echo}, bear: {backend: echo}}\nspeech: {voice: {backend: echo}}"
BASH = 'eval "$(cat script.bash)"; COMP_WORDS=({words}); COMP_CWORD={at}; _localapi_completion localapi; '
BASH += "printf '%s\\n' \"${{COMPREPLY[@]}}\""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a manifest, a profile, the script of bash's completion, and the program on the search path."""
    save(tmp_path / "models.yaml", MANIFEST)
    (tmp_path / "configs").mkdir()
    save(tmp_path / "configs" / "quiet.yaml", "echo: true")
    program = tmp_path / "bin" / "localapi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m localapi "$@"\n')
    program.chmod(0o755)
    save(tmp_path / "script.bash", run(tmp_path, "localapi", "completion", "bash").stdout)
    return tmp_path


def run(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=120, check=True)


def completed(home: Path, *words: str) -> list[str]:
    """Return the completions that bash offers for the last word."""
    listed = " ".join(f"'{word}'" for word in ("localapi", *words))
    done = run(home, "bash", "--norc", "-c", BASH.format(words=listed, at=len(words)))
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_models_and_profiles(home: Path) -> None:
    assert completed(home, "") == list(COMMANDS)
    assert completed(home, "ch") == ["check", "chat"]
    assert {"--port", "--manifest", "--version"} <= set(completed(home, "--"))  # of `serve`, too
    assert completed(home, "--port", "1", "--prof") == ["--profile"]
    assert completed(home, "chat", "b") == ["bird", "bear"]
    assert completed(home, "say", "--model", "") == ["voice"]
    assert "quiet" in completed(home, "check", "--profile", "")
    assert completed(home, "rm", "be") == ["bear"]
    assert completed(home, "add", "--backend", "mlx-l") == ["mlx-lm"]
    assert completed(home, "install", "mlx") == ["mlx-audio-plus", "mlx-audio", "mlx-vlm"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_what_cannot_be_known_is_silence(home: Path) -> None:
    save(home / "models.yaml", "chat: {bird: {backend: eko}}")
    assert completed(home, "chat", "") == []
    (home / "models.yaml").unlink()
    assert completed(home, "chat", "") == []
    assert completed(home, "nope", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(home: Path, shell: str) -> None:
    script = run(home, "localapi", "completion", shell).stdout
    assert "_LOCALAPI_COMPLETE" in script
    if shutil.which(shell):
        run(home, shell, "-n", "-c", script)


def test_where_the_shell_is_not_known_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/ed")
    monkeypatch.setattr(sys, "argv", ["localapi", "completion"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "name the shell: bash, zsh, fish" in capsys.readouterr().err


def test_commands_start_without_what_others_need() -> None:
    code = "import sys; import localapi.cli.{0}; print(*sys.modules)"
    for name, unwanted in {
        "group": {"pydantic", "rich.console", "prompt_toolkit", "yaml"},
        "chat": {"rich.console", "prompt_toolkit", "yaml", "localapi.manifest"},
        "models": {"rich.console", "prompt_toolkit", "yaml", "localapi.manifest"},
        "bench": {"prompt_toolkit", "yaml", "localapi.manifest"},
        "completion": {"pydantic", "rich.console", "prompt_toolkit", "yaml"},
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", code.format(name)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        assert unwanted & set(done.stdout.split()) == set(), name
