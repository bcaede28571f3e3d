"""The wheel: what is in it, and that it works without the checkout it was built from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

from localapi.environments import Environment

ROOT = Path(__file__).parent.parent
SHIPPED = ("configs", "localapi", "LICENSE", "README.md", "pyproject.toml", "models.yaml", ".gitignore")
BUILD_SECONDS = 180
CLEAN = ("LOCALAPI_", "CHAT_", "AUDIO_", "ECHO_", "MODEL_")

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, as it is now: nothing is written into the checkout itself."""
    source = tmp_path_factory.mktemp("source")
    for name in SHIPPED:
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the network, or from uv's cache where there is none."""
    folder = tmp_path_factory.mktemp("wheel")
    said = ""
    for mode in ([], ["--offline"]):
        command = ["uv", "build", "--wheel", *mode, "--python", sys.executable, "--out-dir", str(folder), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        said += done.stderr
        if done.returncode == 0:
            (built,) = folder.glob("*.whl")
            return built
    pytest.fail(f"uv build failed, with the network and without:\n{said}")


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(unpacked: Path, cwd: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The installed program, far from the checkout; -P keeps the current folder out of the import path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(unpacked), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern) if "__pycache__" not in path.parts}


def test_everything_that_the_checkout_ships_is_in_the_wheel(source: Path, unpacked: Path) -> None:
    assert files(unpacked / "localapi" / "configs", "*.*") == files(source / "configs", "*.*") > {"echo.yaml"}
    assert (unpacked / "localapi" / "py.typed").is_file()
    assert files(unpacked / "localapi", "*.py") == files(source / "localapi", "*.py")
    model = Path("localapi", "demo", "model")
    assert files(unpacked / model, "*") == files(source / model, "*") > {"model.safetensors"}


def test_the_lists_of_the_environments_are_in_the_wheel(source: Path, unpacked: Path, tmp_path: Path) -> None:
    lists = files(unpacked / "localapi" / "environments", "*.txt")
    assert lists == files(source / "localapi" / "environments", "*.txt") == {"mlx-audio-plus.txt", "mlx-audio.txt"}
    done = run(unpacked, tmp_path, "-m", "localapi", "install", LOCALAPI_ENVIRONMENTS=str(tmp_path))
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["mlx-audio-plus", "missing"],
        ["mlx-audio", "missing"],
    ]


def test_a_worker_of_another_environment_begins_in_the_wheel(
    unpacked: Path, tmp_path: Path, installed: Callable[[str], Environment]
) -> None:
    bootstrap = unpacked / "localapi" / "worker" / "bootstrap.py"
    code = "import runpy; from pathlib import Path\n"
    code += f"runpy.run_path({str(bootstrap)!r})['show_package'](Path({str(unpacked / 'localapi')!r}))\n"
    code += "import localapi.worker.protocol as p; print(p.__file__)"
    done = subprocess.run(
        [installed("mlx-audio").interpreter, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert Path(done.stdout.strip()).is_relative_to(unpacked)


def test_the_wheel_is_small_and_holds_nothing_else(wheel: Path, unpacked: Path) -> None:
    assert wheel.stat().st_size < 2_000_000
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"localapi"}


def test_its_metadata_name_licence_readme_and_program(unpacked: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (info,) = unpacked.glob("*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text())
    assert (metadata["Version"], metadata["License-Expression"]) == (project["version"], "MIT")
    assert metadata["Requires-Python"] == project["requires-python"]
    assert str(metadata.get_payload()).startswith("# localapi")
    assert (info / "licenses" / "LICENSE").is_file()
    assert "localapi = localapi.cli:main" in (info / "entry_points.txt").read_text()


def test_it_runs_from_the_wheel_and_not_from_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    done = run(unpacked, tmp_path, "-c", "import localapi; print(localapi.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(unpacked)


def test_it_prints_the_schema_that_is_shipped(unpacked: Path, tmp_path: Path) -> None:
    done = run(unpacked, tmp_path, "-m", "localapi", "schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == (unpacked / "localapi" / "configs" / "models.schema.json").read_text().strip()


def test_echo_needs_no_manifest(unpacked: Path, tmp_path: Path) -> None:
    done = run(unpacked, tmp_path, "-m", "localapi", "check", "--port", "1", ECHO_MODE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "environment ECHO_MODE" in done.stdout


def test_the_shipped_profiles_are_found(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("chat: {one: {backend: mlx-lm, path: demo}}\n")
    done = run(unpacked, tmp_path, "-m", "localapi", "check", "--port", "1", "--profile", "echo")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(unpacked / "localapi" / "configs" / "echo.yaml") in done.stdout


def test_the_demo_model_is_found(unpacked: Path, tmp_path: Path) -> None:
    done = run(unpacked, tmp_path, "-m", "localapi", "check", "--port", "1", CHAT_MODEL_PATH="demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(unpacked / "localapi" / "demo" / "model") in done.stdout
