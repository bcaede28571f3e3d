"""`localapi ls`, `localapi rm --files` and `localapi search`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from localapi.backends.model_path import downloaded, is_downloaded, remove
from localapi.cli import cli
from tests.cli.conftest import Run
from tests.fake_hub import hub_with

MANIFEST = """
chat:
  one: {backend: mlx-lm, path: org/shared}
  two: {backend: mlx-lm, path: org/shared}
  three: {backend: mlx-lm, path: org/own}
"""


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two repositories, and a manifest that uses both."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PORT", "9")
    (folder / "models.yaml").write_text(MANIFEST)
    for name, size in (("shared", 300), ("own", 500)):
        cached = tmp_path / "hub" / f"models--org--{name}"
        (cached / "blobs").mkdir(parents=True)
        (cached / "blobs" / "weights").write_bytes(b"x" * size)
        (cached / "snapshots" / "main").mkdir(parents=True)
        (cached / "snapshots" / "main" / "model.safetensors").symlink_to("../../blobs/weights")
    (tmp_path / "hub" / "version.txt").touch()
    return tmp_path / "hub"


def run(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(cli, arguments, input=said)


def test_ls_shows_size_and_users(cache: Path) -> None:
    found = {each["repository"]: each for each in json.loads(run("ls", "--json").output)}
    assert {name: (each["size_bytes"], each["entries"]) for name, each in found.items()} == {
        "org/own": (500, ["three"]),
        "org/shared": (300, ["one", "two"]),
    }
    assert all(each["is_complete"] for each in found.values())
    assert "org/own" in run("ls").output


def test_rm_removes_files_only_if_no_other_entry_uses_them(cache: Path, folder: Path) -> None:
    assert "two" in run("rm", "one", "--files", "--yes").output
    assert is_downloaded("org/shared")
    assert run("rm", "three", "--files", said="n\n").exit_code != 0
    assert "three" in (folder / "models.yaml").read_text()
    assert run("rm", "three", "--files", said="y\n").exit_code == 0
    assert "three" not in (folder / "models.yaml").read_text()
    assert [each.repository for each in downloaded()] == ["org/shared"]


def test_a_dry_run_removes_nothing(cache: Path) -> None:
    assert "org/own" in run("rm", "three", "--files", "--dry-run").output
    assert is_downloaded("org/own")


def test_a_repository_is_downloaded_when_all_its_weights_are_there(cache: Path) -> None:
    snapshot = cache / "models--org--own" / "snapshots" / "main"
    weights = {"a": "model.safetensors", "b": "more.safetensors"}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    assert not is_downloaded("org/own")
    (snapshot / "more.safetensors").touch()
    assert is_downloaded("org/own")
    assert not is_downloaded("org/none")


def test_nothing_but_a_repository_of_the_cache_is_removed(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (cache / "models--org--link").symlink_to(tmp_path / "elsewhere")
    assert remove("../elsewhere") == remove("org/link") == remove("org/none") == 0
    assert (tmp_path / "elsewhere").is_dir()


def test_search_shows_models_for_mlx_first_with_their_size(localapi: Run, tmp_path: Path) -> None:
    with hub_with({"a/tiny-model": tmp_path, "mlx-community/tiny-model": tmp_path, "b/other": tmp_path}) as hub:
        done = localapi("search", "tiny", "--json", HF_ENDPOINT=hub.url)
    found = json.loads(done.stdout)
    assert [(each["repository"], each["size_bytes"], each["fits"]) for each in found] == [
        ("mlx-community/tiny-model", 2_000_000, True), ("a/tiny-model", 2_000_000, True),
    ]  # fmt: skip


def test_search_without_a_network_fails_with_one_line(localapi: Run) -> None:
    done = localapi("search", "tiny")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "Hugging Face" in line
