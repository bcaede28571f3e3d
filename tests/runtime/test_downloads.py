"""A model whose files are missing is shown as not downloaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localapi.backends.options import EntryOptions
from localapi.kinds import KINDS
from localapi.kinds.first_models import first_models
from localapi.runtime.downloads import Downloads

pytestmark = pytest.mark.everyday


def options(path: str, **more: Any) -> EntryOptions:
    return KINDS["chat"].backends["mlx-lm"](backend="mlx-lm", path=path, **more)  # type: ignore[call-arg]


def manifest_with(*entries: EntryOptions) -> Any:
    return SimpleNamespace(entries={str(at): SimpleNamespace(options=each) for at, each in enumerate(entries)})


def instance(state: str) -> Any:
    return SimpleNamespace(state=state)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def download(cache: Path, name: str) -> None:
    snapshot = cache / f"models--{name.replace('/', '--')}" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()


async def test_only_an_unloaded_model_without_its_files_is_not_downloaded(cache: Path) -> None:
    download(cache, "org/here")
    here, away, local = options("org/here"), options("org/away"), options(str(cache))
    downloads = Downloads()
    downloads.look(manifest_with(here, away, local))

    states = [downloads.state_of(each, instance("unloaded")) for each in (here, away, local)]

    assert states == ["unloaded", "not_downloaded", "unloaded"]
    assert [downloads.state_of(away, instance(state)) for state in ("loading", "failed")] == ["loading", "failed"]
    assert downloads.state_of(away, instance("ready")) == "ready"
    assert downloads.state_of(away, instance("unloaded")) == "unloaded"


def test_the_size_is_told_if_the_list_has_it(cache: Path) -> None:
    known, unknown = options(first_models()[0].repository), options("org/away")
    both = options(first_models()[0].repository, draft="org/away")
    downloads = Downloads()
    downloads.look(manifest_with(known, unknown, both))

    assert downloads.bytes_of(known) == first_models()[0].download_bytes
    assert downloads.bytes_of(unknown) is downloads.bytes_of(both) is None
