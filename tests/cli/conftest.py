"""The program as a person runs it, in a folder of its own, on a machine that reaches no Hub."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from localapi.manifest.environment import variables
from localapi.settings import Settings
from tests import forked

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"
"""The discard port, on which nobody listens."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No variable of ours, no cache, no Hub, and a port on which nobody listens."""
    names = {*map(str.lower, variables()), "echo_mode", *Settings.model_fields, "localapi_manifest", "localapi_profile"}
    clean = {k: v for k, v in os.environ.items() if k.lower() not in names and not k.startswith(("HF_", "LOCALAPI_"))}
    home = tmp_path / "home"
    home.mkdir()
    ours = {"HF_ENDPOINT": NOBODY, "HF_HOME": str(tmp_path / "hf"), "HOME": str(home), "PORT": "9"}
    return {**clean, "PYTHONPATH": str(ROOT), **ours}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The current folder of the program."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def localapi(folder: Path, environment: dict[str, str]) -> Run:
    """Run the program; variables by their names."""

    def localapi(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return forked.run_text(*arguments, folder=folder, env={**environment, **variables})

    return localapi
