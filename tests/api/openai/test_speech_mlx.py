"""Models of mlx-audio-plus and mlx-audio behind the server: the real packages, and environments that are missing."""

from __future__ import annotations

import io
import os
import shlex
import wave
from pathlib import Path

import numpy as np
import pytest

from localapi.environments import Environment
from tests.mlx_audio_models import INSTALL_SECONDS, PACKAGES, model, named, soprano
from tests.server import Reply, Server, serving
from tests.sound import seconds

TEXT = "Hello there, this is one sentence."
pytestmark = pytest.mark.timeout(INSTALL_SECONDS)


def say(server: Server, text: str, **more: object) -> Reply:
    body = {"model": "m", "input": text, "voice": "alloy", "response_format": "wav", **more}
    return server.request("POST", "/v1/audio/speech", body)


def manifest(package: str, path: Path, options: str = "") -> str:
    return f"speech: {{m: {{backend: {package}, path: {path}{options}}}}}"


def test_a_real_model_of_the_package_speaks(mlx_audio: Environment, tmp_path: Path) -> None:
    path = soprano(mlx_audio, tmp_path / "soprano")
    options = ", temperature: 0, max_tokens: 16, defaults: {speed: 2}"
    environments = {"LOCALAPI_ENVIRONMENTS": str(mlx_audio.folder.parent)}
    with serving(tmp_path, manifest(mlx_audio.name, path, options), env=environments) as server:
        reply = say(server, "Hello there.")
        assert reply.status == 200, reply.body[:500]
        with wave.open(io.BytesIO(reply.body)) as file:
            frames, rate = file.getnframes(), file.getframerate()
            sound = np.frombuffer(file.readframes(frames), "<i2")
        assert rate == 32_000
        assert 0.2 < frames / rate < 1.5
        assert np.abs(sound).max() > 0
        refused = say(server, "Hello.", instructions="softly")
    assert (refused.status, "does not support" in refused.json()["error"]["message"]) == (400, True)


def test_the_openai_client_gets_every_format(mlx_audio: Environment, tmp_path: Path) -> None:
    path = model(mlx_audio, tmp_path / "tone", "tinytone")
    environments = {"LOCALAPI_ENVIRONMENTS": str(mlx_audio.folder.parent)}
    with serving(tmp_path, manifest(mlx_audio.name, path), env=environments) as server:
        speech = server.client().audio.speech
        lengths = {
            name: seconds(speech.create(model="m", voice="alloy", input=TEXT, response_format=name).content, name)
            for name in ("mp3", "opus", "aac", "flac", "wav", "pcm")
        }
        fast = seconds(
            speech.create(model="m", voice="alloy", input=TEXT, response_format="pcm", speed=2).content, "pcm"
        )
    assert lengths["pcm"] > 0.3
    assert lengths == pytest.approx(dict.fromkeys(lengths, lengths["pcm"]), abs=0.12)
    assert fast * 2 == pytest.approx(lengths["pcm"], rel=0.03)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_missing_environment_is_told_with_the_command_that_makes_it(tmp_path: Path, package: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    with serving(tmp_path, manifest(package, tmp_path), env={"LOCALAPI_ENVIRONMENTS": str(tmp_path)}) as server:
        reply = say(server, "hi")
    assert (reply.status, reply.headers["x-should-retry"]) == (503, "false")
    assert f"Install it: localapi install {package} (or set" in reply.json()["error"]["message"]


def uv_that_copies(folder: Path, environment: Environment) -> Path:
    """A uv for which the packages are an environment that is there."""
    program = folder / "uv"
    source = shlex.quote(str(environment.folder))
    program.write_text(f'#!/bin/sh\n[ $1 = venv ] || exit 0\nfor last; do :; done; cp -R {source} "$last"\n')
    program.chmod(0o755)
    return program


def test_a_missing_environment_is_made_where_the_entry_says_so(mlx_audio: Environment, tmp_path: Path) -> None:
    path = model(mlx_audio, tmp_path / "tone", "tinytone")
    places = {"LOCALAPI_ENVIRONMENTS": str(tmp_path / "new"), "UV": str(uv_that_copies(tmp_path, mlx_audio))}
    with serving(tmp_path, manifest(mlx_audio.name, path, ", install: auto"), env=places) as server:
        assert say(server, "hi").status == 200
    assert named(mlx_audio.name, tmp_path / "new").ready


def test_an_installation_that_fails_is_the_reason_why_the_model_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho error: no space left on device\nexit 2\n")
    uv.chmod(0o755)
    places = {"LOCALAPI_ENVIRONMENTS": str(tmp_path / "new"), "UV": str(uv)}
    with serving(tmp_path, manifest(PACKAGES[0], tmp_path, ", install: auto"), env=places) as server:
        message = say(server, "hi").json()["error"]["message"]
    assert "mlx-audio-plus could not be installed: no space left on device" in message
    assert [name for name in os.listdir(tmp_path / "new") if not name.endswith(".lock")] == []


def test_how_the_environment_is_made_is_no_part_of_what_is_loaded(mlx_audio: Environment, tmp_path: Path) -> None:
    path = model(mlx_audio, tmp_path / "tone", "tinytone")
    environments = {"LOCALAPI_ENVIRONMENTS": str(mlx_audio.folder.parent)}
    with serving(tmp_path, manifest(mlx_audio.name, path), env=environments) as server:
        assert say(server, "hi").status == 200
        before = server.model("m")["place"]["pid"]
        (tmp_path / "models.yaml").write_text(manifest(mlx_audio.name, path, ", install: auto"))
        server.reload()
        assert (server.model("m")["place"]["pid"], before > 0) == (before, True)
