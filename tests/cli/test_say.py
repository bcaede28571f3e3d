"""`localapi say` as a program beside a running server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import forked
from tests.server import Server, save, serving
from tests.sound import seconds

ROOT = Path(__file__).parents[2]
MANIFEST = """
chat:
  parrot: {backend: echo}
speech:
  tone:
    backend: echo
    speakable: true
    lexicon: {GIF: jif}
    max_input_characters: 500
"""
TEXT = "It takes two seconds to say so"  # 30 characters, 15 a second


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("say")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, MANIFEST) as server:
        yield server


def say(folder: Path, *arguments: str, text: str = "", path: str | None = None) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, **({"PATH": path} if path is not None else {})}
    return forked.run("say", *arguments, folder=folder, env=env, typed=text.encode())


def last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    assert b"Traceback" not in done.stderr
    return done.stderr.decode().splitlines()[-1]


@pytest.mark.parametrize("name", ["a.mp3", "a.opus", "a.flac", "a.wav"])
def test_a_file_is_written_in_the_format_that_its_name_says(server: Server, folder: Path, name: str) -> None:
    done = say(folder, TEXT, "-o", name, "--port", str(server.port))
    assert done.returncode == 0, done.stderr
    data = (folder / name).read_bytes()
    assert seconds(data, name[2:]) == pytest.approx(2, abs=0.1)


def test_a_pipe_gets_wav_and_standard_input_is_the_text(server: Server, folder: Path) -> None:
    done = say(folder, "-", "-o", "-", "--speed", "2", "--port", str(server.port), text=TEXT)
    assert seconds(done.stdout, "wav") == pytest.approx(1, abs=0.05)


def test_a_player_without_a_sound_device_is_told_in_one_line(server: Server, folder: Path, tmp_path: Path) -> None:
    player = tmp_path / "aplay"
    player.write_text("#!/bin/sh\necho 'ALSA: Unknown PCM default' >&2\necho 'audio open error' >&2\nexit 1\n")
    player.chmod(0o755)
    done = say(folder, TEXT, "--port", str(server.port), path=str(tmp_path))
    assert done.returncode == 1
    told = done.stderr.decode().strip()
    assert len(told.splitlines()) == 1
    assert "aplay" in told
    assert "--output" in told


def test_it_is_played_where_there_is_a_player(server: Server, folder: Path, tmp_path: Path) -> None:
    player = tmp_path / "afplay"
    player.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; print(open(sys.argv[1], \'rb\').read(4))" "$1"\n'
    )
    player.chmod(0o755)
    done = say(folder, TEXT, "--port", str(server.port), path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert b"RIFF" in done.stderr
    assert "no program that plays sound" in last_line(
        say(folder, TEXT, "--port", str(server.port), path="/nonexistent")
    )


def test_a_dry_run_shows_the_script_and_needs_no_server(folder: Path, server: Server) -> None:
    done = say(folder, "--dry-run", "A **GIF** moves. \U0001f600 And so on.")
    assert done.stdout.decode() == "A jif moves.\nAnd so on.\n"
    assert done.stderr.decode() == "GIF is pronounced 'jif'\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["..."], "nothing that can be spoken"),
        (["x" * 501], "accepts 500 at once"),
        (["hi", "-o", "a.doc"], "has no known suffix"),
        (["hi", "-o", "a.m4a"], "has no known suffix"),  # that is MP4, and AAC comes without a container
        (["hi", "-o", "missing/a.mp3"], "cannot be written"),
        (["hi", "--format", "mp3"], "--format needs --output"),
        (["hi", "--model", "parrot"], "'parrot' is a chat model"),
        (["hi", "--model", "parrot", "--dry-run"], "is not a speech model of the manifest, which has: tone"),
        (["hi", "-o", "-", "--instructions", "be calm", "--voice", "x" * 300], "voice"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(server: Server, folder: Path, arguments: list[str], reason: str) -> None:
    output = [] if "-o" in arguments or "--format" in arguments else ["-o", "-"]
    done = say(folder, *arguments, *output, "--port", str(server.port))
    assert done.returncode in {1, 2}
    assert reason in last_line(done)
    assert not list(folder.glob(".a.*"))


def test_a_running_server_speaks_whatever_manifest_is_in_the_current_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", str(server.port))
    for content in (None, "chat: {parrot: {backend: echo}}", "a mistake"):
        if content is not None:
            save(tmp_path / "models.yaml", content)
        done = say(tmp_path, "hi", "-o", "-")
        assert done.returncode == 0, done.stderr
        assert done.stdout[:4] == b"RIFF"


def test_a_manifest_without_a_speech_model_is_told_with_what_adds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "models.yaml", "chat: {parrot: {backend: echo}}")
    monkeypatch.setenv("PORT", "9")
    done = say(tmp_path, "hi", "-o", "a.mp3")
    assert done.returncode == 1
    assert "`localapi add --backend auto --kind speech` adds one" in last_line(done)


def test_without_a_server_one_is_started_for_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "models.yaml", MANIFEST)
    with socket.socket() as taken:  # and not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(taken.getsockname()[1]))
        done = say(tmp_path, TEXT, "-o", "started.wav")
    assert done.returncode == 0, done.stderr
    assert seconds((tmp_path / "started.wav").read_bytes(), "wav") == pytest.approx(2, abs=0.1)
    assert not [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(tmp_path)]


def test_without_a_server_it_says_how_to_start_one(folder: Path, server: Server) -> None:
    done = say(folder, "hi", "-o", "a.mp3", "--port", "9")
    assert done.returncode == 1
    assert "start one with `localapi`" in last_line(done)


def test_a_file_may_be_read_by_whom_the_umask_allows_and_a_pipe_or_device_stays_one(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    os.umask(mask := os.umask(0))
    assert say(folder, "hi", "-o", "mode.wav", "--port", str(server.port)).returncode == 0
    assert (folder / "mode.wav").stat().st_mode & 0o777 == 0o666 & ~mask
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    try:
        assert say(folder, "hi", "-o", str(pipe), "--format", "wav", "--port", str(server.port)).returncode == 0
        assert pipe.is_fifo()
        heard, _ = reader.communicate(timeout=30)
    finally:
        reader.kill()
    assert heard[:4] == b"RIFF"


def test_text_that_is_not_utf_8_is_said_as_far_as_it_can_be_read(server: Server, folder: Path) -> None:
    arguments = [sys.executable, "-m", "localapi", "say", "-o", "-", "--port", str(server.port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=folder, env=env, input=b"caf\xe9 \xff", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout[:4] == b"RIFF"
