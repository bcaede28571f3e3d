"""Options of the backend piper, and the facts that are read from its files before it is loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from localapi.backends.options import PathProblem
from localapi.backends.piper import Piper
from localapi.backends.speech import MappedVoice
from localapi.errors import LoadFailed
from localapi.worker.protocol import Voice
from tests.piper_voice import make_voice

pytestmark = pytest.mark.everyday


def located(folder: Path, path: str = "voice.onnx", **options: Any) -> Piper:
    return Piper(backend="piper", path=path, **options).located(lambda _: folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_voice(tmp_path / "voice.onnx", speakers=3)
    return tmp_path


def problem(folder: Path, *args: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(PathProblem) as raised:
        located(folder, *args, **options)
    return raised.value.field, str(raised.value)


@pytest.mark.parametrize("path", ["voice.onnx", ".", "./voice.onnx"])
def test_a_path_is_a_file_or_a_folder_with_one(folder: Path, path: str) -> None:
    assert Path(located(folder, path).path) == folder / "voice.onnx"


def test_a_folder_with_several_voices_is_refused_with_their_names(folder: Path) -> None:
    make_voice(folder / "other.onnx")
    field, message = problem(folder, ".")
    assert field == "path"
    assert "contains 2 voices" in message
    assert "other.onnx, voice.onnx" in message


def test_a_folder_with_no_voice_is_refused_with_what_is_there(tmp_path: Path) -> None:
    assert "an empty folder" in problem(tmp_path, ".")[1]
    (tmp_path / "readme.md").touch()
    assert "found: readme.md" in problem(tmp_path, ".")[1]


def test_a_file_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    assert "does not exist; found: voice.onnx" in problem(folder, "voise.onnx")[1]
    assert "does not exist" in problem(folder, "no/such/voice.onnx")[1]


def test_a_file_of_another_kind_is_refused(folder: Path) -> None:
    assert ".onnx" in problem(folder, "voice.onnx.json")[1]


def test_a_voice_without_its_description_is_refused(folder: Path) -> None:
    (folder / "voice.onnx.json").unlink()
    assert "voice.onnx.json is missing" in problem(folder)[1]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("{", "JSON"),
        ("[]", "does not describe"),
        ({"audio": {}}, "audio.sample_rate"),
        ({"audio": {"sample_rate": 0}}, "audio.sample_rate"),
        ({"phoneme_type": "telepathy"}, "phoneme_type"),
        ({"num_speakers": "many"}, "num_speakers"),
        ({"phoneme_id_map": None}, "phoneme_id_map"),
    ],
)
def test_a_description_that_is_wrong_is_refused(folder: Path, said: Any, complaint: str) -> None:
    path = folder / "voice.onnx.json"
    path.write_text(said if isinstance(said, str) else json.dumps({**json.loads(path.read_text()), **said}))
    field, message = problem(folder)
    assert field == "path"
    assert complaint in message


@pytest.mark.parametrize("speaker", ["speaker2", 2, "2"])
def test_a_speaker_is_one_of_the_voices(folder: Path, speaker: str | int) -> None:
    assert located(folder, speaker=speaker).speaker == speaker


@pytest.mark.parametrize(("speaker", "hint"), [("speaker3", "did you mean"), (3, "number below 3"), ("x", "speaker0")])
def test_an_unknown_speaker_is_refused_with_the_known(folder: Path, speaker: str | int, hint: str) -> None:
    field, message = problem(folder, speaker=speaker)
    assert field == "speaker"
    assert hint in message


async def test_the_voices_are_known_before_it_is_loaded(folder: Path) -> None:
    assert await located(folder).known_voices() == [Voice(f"speaker{i}", language="en-US") for i in range(3)]
    make_voice(folder / "unnamed.onnx", speakers=2, named=False)
    assert [voice.id for voice in await located(folder, "unnamed.onnx").known_voices() or ()] == ["0", "1"]
    make_voice(folder / "en_US-one-low.onnx")
    assert [voice.id for voice in await located(folder, "en_US-one-low.onnx").known_voices() or ()] == ["en_US-one-low"]


async def test_a_number_that_the_entry_maps_to_is_a_voice(folder: Path) -> None:
    voices = {"nova": MappedVoice(voice="2"), "onyx": MappedVoice(voice="7"), "echo": MappedVoice(voice="speaker1")}
    known = await located(folder, voices=voices).known_voices() or []
    assert [voice.id for voice in known] == ["speaker0", "speaker1", "speaker2", "2"]


def test_it_is_another_model_when_one_of_its_files_changes(folder: Path) -> None:
    before = located(folder).identity()
    assert located(folder).identity() == before
    assert located(folder, description="another offer").identity() == before
    model, description = located(folder).files()
    os.utime(model, (1, 1))
    changed = located(folder).identity()
    assert changed != before
    description.write_text(description.read_text() + "\n")
    assert located(folder).identity() not in (before, changed)


def test_it_is_the_same_model_when_a_file_is_copied_with_its_time(folder: Path) -> None:
    before = located(folder).identity()
    for path in located(folder).files():
        shutil.copy2(path, folder / "copy")
        (folder / "copy").replace(path)
    assert located(folder).identity() == before


def test_the_files_that_it_was_made_of_are_both(folder: Path) -> None:
    assert located(folder).files() == (folder / "voice.onnx", folder / "voice.onnx.json")
    (folder / "words.txt").write_text("GIF: jif\n")
    assert len(located(folder, lexicon_file="words.txt").files()) == 3


def test_nobody_is_offered_the_stamp() -> None:
    assert not {"stamp", "_found", "found"} & set(Piper.model_json_schema()["properties"])
    with pytest.raises(ValueError, match="stamp"):
        Piper.model_validate({"backend": "piper", "path": "x", "stamp": [1]})


async def test_without_the_package_loading_says_which_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LoadFailed, match="uv pip install piper-tts"):
        await located(folder).start("voice", lambda _: None)


async def test_an_entry_that_was_not_located_knows_no_voices() -> None:
    assert await Piper(backend="piper", path="voice.onnx").known_voices() is None
