"""`localapi init`: a first manifest that works, and nothing that is there is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from localapi.backends.model_path import is_repository
from localapi.cli import cli
from localapi.errors import OperatorError
from localapi.kinds import KINDS
from localapi.kinds.first_models import USABLE_SHARE, first_models, suggested
from localapi.manifest import ManifestSource, read
from localapi.system.memory import room_for_models

ROOT = Path(__file__).parents[2]


def init(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["init", *arguments])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_the_shipped_manifest_with_its_schema_beside_it(folder: Path) -> None:
    done = init()
    assert done.output.splitlines() == ["wrote models.yaml, and models.schema.json for your editor", "next: localapi"]
    first, rest = (folder / "models.yaml").read_text().split("\n", 1)
    assert first == "# yaml-language-server: $schema=models.schema.json"
    assert rest == (ROOT / "models.yaml").read_text().split("\n", 1)[1]
    assert (folder / "models.schema.json").read_text() == (ROOT / "configs" / "models.schema.json").read_text()
    assert "demo" in read(ManifestSource(folder / "models.yaml")).entries


def test_it_makes_the_folder_that_is_named(folder: Path) -> None:
    assert init("my/models").output.splitlines()[-1] == "next: cd my/models && localapi"
    assert (folder / "my" / "models" / "models.yaml").is_file()


def test_a_manifest_that_is_there_is_left_alone(folder: Path) -> None:
    (folder / "models.yaml").write_text("chat: {}\n")
    done = init()
    assert isinstance(done.exception, OperatorError)
    assert str(done.exception).startswith("models.yaml already exists and was not changed")
    assert [path.name for path in folder.iterdir()] == ["models.yaml"]
    assert (folder / "models.yaml").read_text() == "chat: {}\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file", "file is not a folder; name another"),
        ("file/below", "cannot be written"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_had_is_told_in_a_line(folder: Path, name: str, words: str) -> None:
    (folder / "file").touch()
    done = init(name)
    assert isinstance(done.exception, OperatorError)
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)


def test_models_to_begin_with_are_listed_with_what_they_need() -> None:
    done = init("--list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[1:-2]] == [model.id for model in first_models()]


def test_a_model_of_the_list_is_added_under_its_id(folder: Path) -> None:
    done = init("--model", "qwen3-1.7b", "--model", "mlx-community/Qwen3-0.6B-4bit")
    assert done.exit_code == 0
    entries = read(ManifestSource(folder / "models.yaml")).entries
    assert entries["qwen3-1.7b"].identity.options["path"] == "mlx-community/Qwen3-1.7B-4bit"
    assert "qwen3-0.6b" not in entries  # the shipped manifest has this repository


def test_yes_takes_the_suggested_model(folder: Path) -> None:
    assert init("--yes").exit_code == 0
    wanted = suggested(room_for_models(None, USABLE_SHARE))
    entries = read(ManifestSource(folder / "models.yaml")).entries.values()
    assert wanted.repository in [entry.identity.options.get("path") for entry in entries]


def test_an_unknown_model_is_refused_before_anything_is_written(folder: Path) -> None:
    assert isinstance(init("--model", "no-such-thing").exception, OperatorError)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("memory", "found"), [(0, 0), (1_000_000_000, 0), (7 * 10**9, 3), (10**12, 4)])
def test_the_suggestion_fits(memory: int, found: int) -> None:
    assert suggested(memory) is first_models()[found]


def test_the_list_is_sorted_and_every_model_is_one_that_add_takes() -> None:
    models = first_models()
    assert sorted(models, key=lambda model: model.memory_bytes) == list(models)
    for model in models:
        assert is_repository(model.repository)
        assert model.backend in KINDS[model.kind].backends
        assert model.download_bytes < model.memory_bytes
        assert model.licence
