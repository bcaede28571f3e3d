"""A folder of its own for each test, and an environment that says nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localapi.errors import ManifestError
from localapi.manifest import Manifest, ManifestSource, Overrides, read
from localapi.manifest.environment import variables
from localapi.settings import Settings

Write = Callable[..., Path]
Read = Callable[..., Manifest]
Problems = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty; no variable of ours is set."""
    for name in (
        *map(str.lower, variables()),
        "echo_mode",
        *Settings.model_fields,
        "localapi_manifest",
        "localapi_profile",
    ):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Write:
    """Write a file of the folder; `models.yaml` where no other is named."""

    def write(text: str, name: str = "models.yaml") -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return Path(name)

    return write


@pytest.fixture
def manifest_of(write: Write) -> Read:
    """The manifest of this text, a profile's text, and the environment."""

    def manifest_of(text: str | None, profile: str | None = None) -> Manifest:
        if text is not None:
            write(text)
        if profile is not None:
            write(profile, "configs/test.yaml")
        return read(ManifestSource(profile="test" if profile is not None else None, overrides=Overrides.read()))

    return manifest_of


@pytest.fixture
def problems_of(manifest_of: Read) -> Problems:
    """Every line that a person would read about it."""

    def problems_of(text: str | None, profile: str | None = None) -> list[str]:
        with pytest.raises(ManifestError) as caught:
            manifest_of(text, profile)
        return str(caught.value).splitlines()

    return problems_of
