"""The package: what is in the sdist and in the wheel that is built from it, and that it works without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

from localapi.environments import Environment
from tests.server import serving

ROOT = Path(__file__).parent.parent
FOLDERS = ("configs", "docs", "localapi")
DOCUMENTS = ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "README.zh-CN.md")
SHIPPED = (*FOLDERS, *DOCUMENTS, "pyproject.toml", "models.yaml", ".gitignore")
JUNK = ("notes.txt", "uv.lock", ".env", ".venv/pyvenv.cfg", "dist/old.whl", "localapi/__pycache__/x.pyc", "tests/x.py")
"""Files of a checkout that must not be packaged."""
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
        elif place.exists():
            shutil.copy(place, source / name)
    for name in JUNK:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("junk")
    return source


def uv(*command: str | Path, cwd: Path) -> str:
    """Run uv from its cache, or with the network where that is not enough. Gives what it printed."""
    said = ""
    for mode in (["--offline"], []):
        words = ["uv", *mode, *map(str, command)]
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        if done.returncode == 0:
            return done.stdout
        said += done.stderr
    pytest.fail(f"uv {command[0]} failed, without the network and with it:\n{said}")


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    uv("build", "--python", sys.executable, "--out-dir", folder, source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def pins(built: Path) -> Path:
    """The versions that the checkout is tested with, as a file."""
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"]
    file = built / "pins.txt"
    file.write_text("\n".join(pinned))
    return file


@pytest.fixture(scope="module")
def program(wheel: Path, pins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`localapi`, installed from the wheel into an environment that was empty."""
    folder = tmp_path_factory.mktemp("installed")
    uv("venv", "--python", sys.executable, folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    uv("pip", "install", "--python", python, "--constraints", pins, wheel, cwd=folder)
    return folder / "env" / "bin" / "localapi"


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


LISTS = ("faster-whisper.txt", "mlx-audio-plus.txt", "mlx-audio.txt", "mlx-vlm.txt")


def test_the_lists_of_the_environments_are_in_the_wheel(source: Path, unpacked: Path, tmp_path: Path) -> None:
    lists = files(unpacked / "localapi" / "environments", "*.txt")
    assert lists == files(source / "localapi" / "environments", "*.txt") == set(LISTS)
    done = run(unpacked, tmp_path, "-m", "localapi", "install", LOCALAPI_ENVIRONMENTS=str(tmp_path))
    found = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:]}
    assert found == {name.removesuffix(".txt"): "missing" for name in LISTS}


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


def test_the_sdist_holds_what_a_build_and_its_readers_need_and_nothing_else(source: Path, built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    there = {name for name in SHIPPED if (ROOT / name).exists()}
    assert {name.partition("/")[0] for name in names} == {*there, "PKG-INFO"}
    for folder in FOLDERS:
        shipped = {str(path.relative_to(source)) for path in (source / folder).rglob("*") if path.is_file()} - set(JUNK)
        assert {name for name in names if name.startswith(f"{folder}/")} == shipped


def test_the_wheel_is_small_and_holds_nothing_else(wheel: Path, unpacked: Path) -> None:
    assert wheel.stat().st_size < 2_700_000  # half of it is the demo model
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"localapi"}


def test_its_metadata_name_licence_readme_and_program(unpacked: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (info,) = unpacked.glob("*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text())
    assert (metadata["Version"], metadata["License-Expression"]) == (project["version"], "MIT")
    assert metadata["Requires-Python"] == project["requires-python"]
    assert str(metadata.get_payload()).startswith("# localapi")
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
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


# Installed


def typed(program: str | Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run what a person types, with an environment that knows nothing of a checkout."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(CLEAN) and k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(
        [str(program), *arguments], cwd=cwd, env=clean, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_installed_program_tells_its_version(program: Path, tmp_path: Path) -> None:
    done = typed(program, "--version", cwd=tmp_path)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (done.returncode, done.stdout) == (0, f"localapi, version {version}\n")


def test_without_a_manifest_it_says_how_to_get_one(program: Path, tmp_path: Path) -> None:
    done = typed(program, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "`localapi init`" in done.stderr


def test_a_first_manifest_serves_the_demo(program: Path, tmp_path: Path) -> None:
    done = typed(program, "init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    with serving(tmp_path, program=program) as server:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        body = {"model": "demo", "messages": question}
        reply = server.request("POST", "/v1/chat/completions", body)
        said = server.request("POST", "/v1/audio/speech", {"model": "tts-1", "input": "Good morning!"})
    assert reply.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."
    assert (said.status, said.headers["content-type"]) == (200, "audio/mpeg")


def test_uvx_runs_the_wheel(wheel: Path, pins: Path, tmp_path: Path) -> None:
    where = ("--python", sys.executable, "--constraints", pins, "--from", wheel)
    told = uv("tool", "run", *where, "localapi", "--help", cwd=tmp_path)
    assert "init" in told


@pytest.mark.parametrize("package", ["h11", "hypercorn", "mlx-lm", "quart"])
def test_what_is_written_against_private_parts_has_one_version_for_every_python(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins = [pin for pin in project["tool"]["uv"]["constraint-dependencies"] if pin.startswith(f"{package}==")]
    assert len(pins) == 1
    assert ";" not in pins[0]
