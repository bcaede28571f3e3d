"""Fixtures for the documents' examples: a server, a home for commands, and packages of clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.pages import ROOT
from tests.server import Server, serving

NODE_PACKAGES = {
    "@ai-sdk/openai-compatible": "2.0.92",
    "@anthropic-ai/sdk": "1.14.0",
    "ai": "6.0.326",
    "ollama": "0.6.4",
    "openai": "6.49.0",
}
"""Packages that the examples for Node import. They are installed once, in a place that later runs find."""
PYTHON_PACKAGES = {"langchain_openai": "langchain-openai==1.7.3"}
"""Imports of examples in Python beyond those of tests, with the packages to install."""
INSTALL_SECONDS = 120


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The checkout's own manifest, as the README starts it."""
    with serving(ROOT) as server:
        yield server


@pytest.fixture(scope="session")
def embedding_server() -> Iterator[Server]:
    """The same with a stand-in for embedding models, which would have to be downloaded."""
    with serving(ROOT, env={"EMBEDDING_BACKEND": "echo"}) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the shipped manifest, and a program that plays sound."""
    shutil.copy(ROOT / "models.yaml", tmp_path)
    player = tmp_path / "bin" / "afplay"
    player.parent.mkdir()
    player.write_text("#!/bin/sh\necho played\n")
    player.chmod(0o755)
    return tmp_path


@pytest.fixture(scope="session")
def node_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds the packages of the examples; skips where they cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # there is none with -p no:cacheprovider
    folder = cache.mkdir("node") if cache is not None else tmp_path_factory.mktemp("node")
    wanted = json.dumps({"private": True, "dependencies": NODE_PACKAGES})
    done = folder / "installed.json"
    if not done.exists() or done.read_text() != wanted:
        (folder / "package.json").write_text(wanted)
        _install(folder)
        done.write_text(wanted)
    return folder


def _install(folder: Path) -> None:
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"]
    env = {**os.environ, "npm_config_fetch_retries": "1", "npm_config_fetch_timeout": "20000"}
    try:
        subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=INSTALL_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm could not install {', '.join(NODE_PACKAGES)}: {str(error.stderr)[-300:]}")
