"""Faults of the machine: missing rights, vanishing folders and drives, jumping clocks.

Each time: one error that says what to do, other models go on, and all is well again once the cause is gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from localapi.runtime.backoff import FIRST_PAUSE_SECONDS, TOLERATED, Backoff
from tests.piper_voice import make_voice
from tests.server import Reply, Server, save, serving, until
from tests.unanswered import unanswered

ROOT = Path(__file__).parent.parent
CHAT, SPEECH = "/v1/chat/completions", "/v1/audio/speech"


def ask(server: Server, model: str) -> Reply:
    if model in {"voice", "brief", "broken"}:
        return server.request("POST", SPEECH, {"model": model, "input": "Hello."})
    return server.request("POST", CHAT, {"model": model, "messages": [{"role": "user", "content": "Hello!"}]})


def error_of(reply: Reply) -> str:
    assert (reply.status, reply.json()["error"]["code"]) == (503, "model_unavailable")
    message = reply.json()["error"]["message"]
    assert isinstance(message, str)
    return message


# Folders and rights


def test_a_folder_deleted_while_loaded_disturbs_nothing_and_may_come_back(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "localapi/demo/model", tmp_path / "model")
    make_voice(tmp_path / "tiny.onnx")
    manifest = """
chat: {echo: {backend: echo}, demo: {backend: mlx-lm, path: ./model}}
speech: {voice: {backend: piper, path: ./tiny.onnx}}
"""
    with serving(tmp_path, manifest) as server:
        files = {"demo": tmp_path / "model", "voice": tmp_path / "tiny.onnx"}
        for model, file in files.items():
            assert ask(server, model).status == 200
            file.rename(f"{file}.away")
            assert ask(server, model).status == 200
            assert server.reload()["ok"]
            assert any(str(file) in warning for warning in server.status()["warnings"])
            assert server.request("POST", f"/admin/models/{model}/unload").status == 200
            for _ in range(TOLERATED + 1):
                assert f"{file} does not exist" in error_of(ask(server, model))
            assert ask(server, "echo").status == 200
            Path(f"{file}.away").rename(file)
            assert ask(server, model).status == 200
        assert server.reload()["ok"]
        assert server.status()["warnings"] == []


def test_a_folder_that_is_gone_keeps_no_edit_of_other_entries_away(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "localapi/demo/model", tmp_path / "model")
    entry = "demo: {backend: mlx-lm, path: ./model}"
    with serving(tmp_path, f"chat: {{{entry}}}") as server:
        (tmp_path / "model").rename(tmp_path / "away")
        save(tmp_path / "models.yaml", f"chat: {{{entry}, other: {{backend: echo}}}}")
        server.wait_for(r"reloaded revision 2: \+other")
        assert ask(server, "other").status == 200
        assert any("chat.demo.path" in warning for warning in server.status()["warnings"])
        save(tmp_path / "models.yaml", "chat: {demo: {backend: mlx-lm, path: ./model, preload: true}}")
        server.wait_for("manifest rejected: models.yaml:1:.*chat.demo.path")
        (tmp_path / "away").rename(tmp_path / "model")
        save(tmp_path / "models.yaml", f"chat: {{{entry}}}")
        server.wait_for("reloaded revision 3: -other")
        assert server.status()["warnings"] == []


def test_a_pinned_model_comes_back_with_its_file(tmp_path: Path) -> None:
    make_voice(tmp_path / "tiny.onnx")
    with serving(tmp_path, "speech: {voice: {backend: piper, path: ./tiny.onnx, pin: true}}") as server:
        until(lambda: server.model("voice")["state"] == "ready")
        (tmp_path / "tiny.onnx").rename(tmp_path / "away")
        before = len(server.lines)
        os.kill(server.model("voice")["place"]["pid"], signal.SIGKILL)
        for _ in range(TOLERATED + 1):
            server.wait_for("voice: loading", after=before)
            before = len(server.lines)
        assert server.request("GET", "/health/ready").status == 503
        assert server.model("voice")["failures_in_a_row"] == 1, "that of the worker"
        (tmp_path / "away").rename(tmp_path / "tiny.onnx")
        until(lambda: server.model("voice")["state"] == "ready")
        assert server.request("GET", "/health/ready").status == 200
        assert len([line for line in server.lines if "not loaded" in line]) == 1


@pytest.fixture
def without_privilege() -> list[str]:
    """The command under which a server has the rights of an ordinary user, also where the tests run as root."""
    if os.geteuid() != 0:
        return []
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"], check=False).returncode != 0:
        pytest.skip("root may read everything, and setpriv, which takes that away, does not work here")
    return command


def test_files_that_may_not_be_read_are_told_and_read_once_they_may(
    tmp_path: Path, without_privilege: list[str]
) -> None:
    weights = shutil.copytree(ROOT / "localapi/demo/model", tmp_path / "model") / "model.safetensors"
    make_voice(tmp_path / "tiny.onnx")
    manifest = """
chat: {echo: {backend: echo}, demo: {backend: mlx-lm, path: ./model}}
speech: {voice: {backend: piper, path: ./tiny.onnx}}
"""
    with serving(tmp_path, manifest, through=without_privilege) as server:
        for model, file in {"demo": tmp_path / "model", "voice": tmp_path / "tiny.onnx.json"}.items():
            rights = file.stat().st_mode
            file.chmod(0)
            told = error_of(ask(server, model))
            assert "Permission denied" in told
            assert "the server's user" in told
            assert server.reload()["ok"]
            assert any("Permission denied" in warning for warning in server.status()["warnings"])
            assert ask(server, "echo").status == 200
            file.chmod(rights)
            assert ask(server, model).status == 200
        server.request("POST", "/admin/models/demo/unload")
        weights.chmod(0)
        assert str(weights) in error_of(ask(server, "demo"))
        weights.chmod(0o644)
        assert ask(server, "demo").status == 200
        (tmp_path / "models.yaml").chmod(0)
        assert "models.yaml: cannot be read: Permission denied" in "".join(
            f"{problem['source']}: {problem['message']}" for problem in server.reload()["problems"]
        )
        (tmp_path / "models.yaml").chmod(0o644)
        server.wait_for("the manifest was read; it equals revision 1", after=len(server.lines))


def patched(tmp_path: Path, code: str) -> dict[str, str]:
    """The environment of a server in which this code runs before all other."""
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


# Clocks

_CLOCK = """
import os, time
real, real_ns, place = time.time, time.time_ns, os.environ["TEST_CLOCK"]
def jump():
    with open(place) as file:
        return float(file.read() or 0)
time.time = lambda: real() + jump()
time.time_ns = lambda: real_ns() + int(jump() * 1e9)
"""


@pytest.mark.parametrize("jump", [-7 * 86400.0, 7 * 86400.0])
def test_a_clock_that_jumps_unloads_nothing_and_ends_no_pause(tmp_path: Path, jump: float) -> None:
    make_voice(tmp_path / "broken.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no voice")
    clock = tmp_path / "clock"
    clock.write_text("0")
    manifest = """
speech:
  voice: {backend: espeak-ng, keep_alive: 10m}
  brief: {backend: espeak-ng, voice: de, keep_alive: 1}
  broken: {backend: piper, path: ./broken.onnx}
"""
    variables = {**patched(tmp_path, _CLOCK), "TEST_CLOCK": str(clock)}
    with serving(tmp_path, manifest, env=variables) as server:
        assert ask(server, "voice").status == 200
        for _ in range(TOLERATED):
            assert "broken.onnx" in error_of(ask(server, "broken"))
        pid, ends = server.model("voice")["place"]["pid"], server.model("broken")["cooling_down_until"]
        save(clock, str(jump))
        assert abs(server.status()["now"] - time.time() - jump) < 60
        told = ask(server, "broken")
        if "retry-after" in told.headers:  # or the pause of five seconds has passed on this machine
            assert 0 < int(told.headers["retry-after"]) <= FIRST_PAUSE_SECONDS * 2
        until(lambda: server.model("broken")["cooling_down_until"] is None)
        assert abs(ends - time.time()) < 60
        assert ask(server, "brief").status == 200
        until(lambda: server.model("brief")["state"] == "unloaded")
        assert server.model("voice")["place"]["pid"] == pid
        save(tmp_path / "models.yaml", manifest.replace("10m", "20m"))
        server.wait_for("reloaded revision 2: =voice")


@pytest.mark.parametrize("jump", [-7 * 86400.0, 7 * 86400.0])
def test_a_pause_is_as_long_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    backoff, now = Backoff(), time.time
    for _ in range(TOLERATED):
        backoff.failed()
    before = backoff.seconds_left
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    assert 0 < backoff.seconds_left <= before
    assert backoff.paused_until == pytest.approx(now() + jump + before, abs=2)


# Network drives

_DRIVE = """
import errno, io, os
away, real = os.environ["TEST_DRIVE_AWAY"], {"open": io.open, "stat": os.stat}
def fails(name):
    def call(path, *rest, **options):
        if str(path).endswith("models.yaml") and os.access(away, os.F_OK):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return real[name](path, *rest, **options)
    return call
io.open, os.stat = fails("open"), fails("stat")
"""


_WHOLE_DRIVE = _DRIVE.replace('str(path).endswith("models.yaml")', 'os.sep + "drive" + os.sep in f"{path}{os.sep}"')


def test_a_change_that_the_system_does_not_tell_is_found(tmp_path: Path) -> None:
    """As on a network drive, where another machine writes: here under another name of the same file."""
    (tmp_path / "elsewhere").mkdir()
    with serving(tmp_path, "chat: {echo: {backend: echo}}") as server:
        os.link(tmp_path / "models.yaml", tmp_path / "elsewhere" / "file")
        (tmp_path / "elsewhere" / "file").write_text("chat: {echo: {backend: echo}, other: {backend: echo}}")
        server.wait_for(r"reloaded revision 2: \+other")
        (tmp_path / "elsewhere" / "file").write_text("chat: {echo: [}")
        server.wait_for("still serving revision 2")
        time.sleep(5)  # nothing is to happen: it was told
        assert len([line for line in server.lines if "manifest rejected" in line]) == 1


def test_a_drive_that_is_away_changes_nothing_and_is_read_when_it_is_back(tmp_path: Path) -> None:
    away = tmp_path / "away"
    variables = {**patched(tmp_path, _DRIVE), "TEST_DRIVE_AWAY": str(away)}
    with serving(tmp_path, "chat: {echo: {backend: echo}}", env=variables) as server:
        away.touch()
        save(tmp_path / "models.yaml", "chat: {echo: {backend: echo}, other: {backend: echo}}")
        server.wait_for("manifest rejected: models.yaml: cannot be read: Stale file handle: is the drive connected")
        assert ask(server, "echo").status == 200
        assert not server.status()["last_attempt"]["ok"]
        away.unlink()
        server.wait_for(r"reloaded revision 2: \+other")
        assert server.status()["last_attempt"]["ok"]


def test_a_manifest_is_followed_also_after_its_whole_drive_was_away(tmp_path: Path) -> None:
    """Its folders, too, cannot be looked at meanwhile."""
    away, folder = tmp_path / "away", tmp_path / "drive" / "folder"
    folder.mkdir(parents=True)
    manifest = folder / "models.yaml"
    manifest.write_text("chat: {echo: {backend: echo}}")
    variables = {**patched(tmp_path, _WHOLE_DRIVE), "TEST_DRIVE_AWAY": str(away)}
    with serving(tmp_path, None, "--manifest", str(manifest), env=variables) as server:
        away.touch()
        save(manifest, "chat: {echo: {backend: echo}, other: {backend: echo}}")
        server.wait_for("cannot be read: Stale file handle: is the drive connected")
        away.unlink()
        server.wait_for(r"reloaded revision 2: \+other")
        save(manifest, "chat: {echo: {backend: echo}}")
        server.wait_for("reloaded revision 3: -other")


def test_a_manifest_that_never_comes_keeps_up_neither_requests_nor_a_shutdown(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "chat: {echo: {backend: echo}}") as server,
        unanswered(tmp_path / "models.yaml") as waits,
    ):
        before = time.time()
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.status()["reading_since"])
        assert server.status()["reading_since"] >= before
        assert ask(server, "echo").status == 200
        assert server.stop() == 0
        assert waits()  # so would the server
