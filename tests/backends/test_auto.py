"""The choice of `backend: auto` for a path: only files are read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from localapi.backends.auto import Auto
from localapi.backends.options import PathProblem

pytestmark = pytest.mark.everyday


def chosen(path: str | None, folder: Path) -> str:
    return Auto(backend="auto", path=path).located(lambda _: folder).backend_name


def config(folder: Path, **content: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_no_path_is_the_systems_voice(tmp_path: Path) -> None:
    assert chosen(None, tmp_path) == ("macos-say" if sys.platform == "darwin" else "espeak-ng")


@pytest.mark.parametrize(
    ("content", "backend"),
    [
        ({"model_type": "cosyvoice3"}, "mlx-audio-plus"),
        ({"model_type": "soprano"}, "mlx-audio-plus"),
        ({"model_type": "of tomorrow"}, "mlx-audio-plus"),
        ({}, "mlx-audio-plus"),
        ({"model_type": "chatterbox"}, "mlx-audio"),
        ({"architecture": "Kokoro"}, "mlx-audio"),
        ({"model_type": "llama"}, "mlx-audio-plus"),
        ({"model_type": "llama", "acoustic_dim": 1}, "mlx-audio"),
    ],
)
def test_a_folder_is_told_by_its_config(tmp_path: Path, content: dict[str, object], backend: str) -> None:
    config(tmp_path / "model", **content)
    assert chosen("model", tmp_path) == backend


def test_a_folder_whose_config_does_not_say_is_told_by_its_name(tmp_path: Path) -> None:
    config(tmp_path / "Kokoro-82M-bf16", hidden_dim=512)
    assert chosen("./Kokoro-82M-bf16", tmp_path) == "mlx-audio"


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_a_repository_is_told_by_what_the_cache_has_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"HF_HOME": "hub", "HF_HUB_CACHE": "", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    cached = tmp_path / below / "models--me--voice"
    config(cached / "snapshots" / "c0ffee", model_type="qwen3_tts")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("c0ffee")
    assert chosen("me/voice", tmp_path) == "mlx-audio"


@pytest.mark.parametrize(
    ("repository", "backend"),
    [
        ("me/chatterbox-fp16", "mlx-audio"),
        ("me/Fun-CosyVoice3-0.5B", "mlx-audio-plus"),
        ("me/anything", "mlx-audio-plus"),
    ],
)
def test_a_repository_that_is_not_there_yet_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: str, backend: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert chosen(repository, tmp_path) == backend


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds neither an MLX model (config.json) nor a Piper voice (.onnx); found: an empty folder"),
        (["README.md", "weights.pth"], "found: README.md, weights.pth"),
    ],
)
def test_a_folder_that_is_neither_says_what_it_holds(tmp_path: Path, files: list[str], words: str) -> None:
    (tmp_path / "model").mkdir()
    for name in files:
        (tmp_path / "model" / name).touch()
    with pytest.raises(PathProblem) as raised:
        chosen("model", tmp_path)
    assert raised.value.field == "path"
    assert words in str(raised.value)


def test_what_is_not_there_or_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "voice.wav").touch()
    config(tmp_path / "broken").joinpath("config.json").write_text("{")
    for path, words in {
        "./voice.wav": "neither a Piper voice (.onnx) nor a folder",
        "./nowhere": "does not exist",
        "no such/thing here": "neither a folder",
        "broken": "config.json cannot be read",
    }.items():
        with pytest.raises(PathProblem, match=words.replace("(", r"\(").replace(")", r"\)")):
            chosen(path, tmp_path)
