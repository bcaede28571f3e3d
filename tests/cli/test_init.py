"""`localapi init`: a first manifest that works, and nothing that is there is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from localapi.cli import cli
from localapi.errors import OperatorError
from localapi.manifest import ManifestSource, read

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
