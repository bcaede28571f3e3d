"""Examples in YAML are manifests and profiles that the server takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from localapi.backends.echo import EchoSpeech
from localapi.backends.mlx_lm import MlxLm
from localapi.backends.parameters import ChatParameters, SpeechParameters
from localapi.kinds import KINDS
from localapi.manifest import ManifestSource, ServerOptions, read
from localapi.manifest.server_options import document
from tests.documents.pages import Block, blocks, page, parameters
from tests.piper_voice import make_voice


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest by example, and what the examples name beside it."""
    (example,) = [block for block in page("models-yaml.md").blocks if block.first_comment == "models.yaml"]
    (tmp_path / "models.yaml").write_text(example.text)
    for name in ("configs", "voices"):
        (tmp_path / name).mkdir()
    make_voice(tmp_path / "voices" / "amy.onnx")
    (tmp_path / "voices" / "me.wav").touch()
    (tmp_path / "configs" / "guest.key").write_text("g" * 16)
    for name in re.findall(r"\benv: (\w+)", "".join(block.text for block in blocks("yaml"))):
        monkeypatch.setenv(name, "o" * 16)
    return tmp_path


@pytest.mark.parametrize("block", parameters(blocks("yaml")))
def test_each_example_in_yaml_is_a_manifest_or_a_profile(block: Block, folder: Path) -> None:
    """The first comment says which file it is; without one it is a manifest. A profile is laid over the example."""
    name = block.first_comment or "models.yaml"
    (folder / name).write_text(block.text)
    source = ManifestSource(folder / "models.yaml", None if name == "models.yaml" else str(folder / name))
    assert read(source).files


def given(name: str, folder: Path) -> Path:
    """The file that this example is."""
    found = {block.text for block in blocks("yaml") if block.first_comment == name}
    (text,) = found
    (folder / name).write_text(text)
    return folder / "models.yaml"


def test_the_examples_in_yaml_have_these_entries(folder: Path) -> None:
    assert list(read(ManifestSource(folder / "models.yaml")).entries) == ["local-chat", "local-audio"]
    changed = read(ManifestSource(given("configs/mine.yaml", folder), "mine"))
    assert list(changed.entries) == ["local-chat", "scratch"]
    asking = read(ManifestSource(given("configs/keys.yaml", folder), "keys"))
    assert [(key.name, key.models, key.admin) for key in asking.keys] == [
        ("operator", None, True), ("guest", {"local-chat"}, False),
    ]  # fmt: skip
    speaking = read(ManifestSource(given("configs/voices.yaml", folder), "voices"))
    assert [entry.id for entry in speaking.entries.values() if entry.kind.name == "speech"] == [
        "local-audio", "amy", "robot", "cloned",
    ]  # fmt: skip


def test_the_manifest_by_example_shows_every_option_and_value() -> None:
    example = "".join(block.text for block in blocks("yaml"))
    fields = {*document().model_fields, *ServerOptions.model_fields, *MlxLm.model_fields, *EchoSpeech.model_fields}
    fields |= {*ChatParameters.model_fields, *SpeechParameters.model_fields}
    fields |= {name for kind in KINDS.values() for backend in kind.backends.values() for name in backend.model_fields}
    words = set(re.findall(r"[\w-]+", example))
    backends = {name for kind in KINDS.values() for name in kind.backends}
    assert fields - words == set()
    assert backends - words == set()
    assert {"debug", "info", "warning", "error", "warm", "cold", "forever", "demo"} - words == set()


def test_the_values_called_defaults_are_defaults(folder: Path) -> None:
    shown, usual = read(ManifestSource(folder / "models.yaml")).server, ServerOptions()
    assert shown == usual
    options = MlxLm(backend="mlx-lm", path="demo")
    text = (folder / "models.yaml").read_text()
    for name in ("max_batch", "max_stall_ms", "prefix_cache_mb", "prefix_cache_disk_mb", "swap"):
        assert f" {name}: {getattr(options, name)} " in text
