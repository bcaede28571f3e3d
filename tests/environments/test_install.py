"""`localapi install`: what it makes, what it leaves when it fails, and what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from localapi.environments import NAMES, Environment
from localapi.environments import pinned as pinned_lists
from tests.mlx_audio_models import INSTALL_SECONDS, ROOT, named

NAME = "mlx-audio-plus"

pytestmark = pytest.mark.timeout(INSTALL_SECONDS)


class Uv:
    """A uv of shell that makes an environment in no time; its Python imports whatever it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "uv"
        self.calls = folder / "calls"
        self.entered = folder / "entered"
        os.mkfifo(self.entered)
        self.does()

    def does(self, then: str = "") -> None:
        """Run the example after its packages are installed."""
        calls, base = shlex.quote(str(self.calls)), shlex.quote(sys.executable)
        self.program.write_text(
            f'#!/bin/sh\necho "$@" >> {calls}\n'
            "case $1 in\n"
            'venv) for last; do :; done; mkdir -p "$last/bin"; printf "#!/bin/sh\\ncase \\$2 in -c) ;; *) exec '
            f'{base} \\"\\$@\\";; esac\\n" > "$last/bin/python"; chmod +x "$last/bin/python";;\n'
            f"pip) echo Installed 3 packages; echo ' + one==1'; {then or ':'};;\nesac\n"
        )
        self.program.chmod(0o755)

    @property
    def builds(self) -> int:
        return self.calls.read_text().count("pip install") if self.calls.exists() else 0


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    folder = tmp_path / "uv"
    folder.mkdir()
    return Uv(folder)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "environments"


def variables(place: Path, uv: Uv | None, more: Mapping[str, str]) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name not in {"UV", "LOCALAPI_ENVIRONMENTS"}}
    own = {"PYTHONPATH": str(ROOT), "LOCALAPI_ENVIRONMENTS": str(place)} | ({"UV": str(uv.program)} if uv else {})
    return {**clean, **own, **more}


def install(place: Path, uv: Uv | None, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localapi", "install", *arguments],
        check=False,
        env=variables(place, uv, more),
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )


@contextmanager
def installing(place: Path, uv: Uv) -> Iterator[subprocess.Popen[str]]:
    """One in the middle of its work: uv has the packages in and waits for ever."""
    uv.does(f"echo > {shlex.quote(str(uv.entered))}; exec sleep 600")
    process = subprocess.Popen(
        [sys.executable, "-m", "localapi", "install", NAME],
        env=variables(place, uv, {}),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        uv.entered.read_text()
        yield process
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            child.kill()
        process.communicate(timeout=30)


def visible(place: Path) -> list[str]:
    return sorted(each.name for each in place.iterdir() if not each.name.startswith("."))


@pytest.mark.parametrize("name", NAMES)
def test_a_list_names_versions_and_nothing_else(name: str) -> None:
    lines = named(name, Path("/nowhere")).requirements.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[\w.]+( ; [\w .<>=!'-]+)?", line)] == []
    packages = {line.partition("==")[0] for line in lines}
    engine = {"ctranslate2", "onnxruntime"} if name == "faster-whisper" else {"mlx", "mlx-cpu", "mlx-metal"}
    assert {name, *engine, "msgspec", "numpy", "av"} <= packages
    assert not packages & {"torch", "quart", "pydantic-settings"}


def test_what_is_installed_is_whole_and_a_second_time_is_free(place: Path, uv: Uv) -> None:
    first, second = install(place, uv, NAME), install(place, uv, NAME)
    assert (first.returncode, second.returncode) == (0, 0)
    environment = named(NAME, place)
    assert environment.ready
    assert visible(place) == [environment.folder.name]
    assert first.stderr.splitlines()[0] == f"installing {NAME} in {environment.folder}"
    assert first.stderr.splitlines()[-1].startswith(f"installed {NAME} in ")
    assert "one==1" not in first.stderr
    assert second.stderr == f"{NAME} is installed: {environment.folder}\n"
    assert uv.builds == 1


def test_force_makes_it_again(place: Path, uv: Uv) -> None:
    install(place, uv, NAME)
    (named(NAME, place).folder / "stale").touch()
    assert install(place, uv, NAME, "--force").returncode == 0
    assert not (named(NAME, place).folder / "stale").exists()
    assert [each.name for each in place.iterdir() if each.name.endswith((".draft", ".old"))] == []


def test_a_failure_says_why_and_leaves_nothing(place: Path, uv: Uv) -> None:
    uv.does("echo 'error: Failed to fetch the list'; echo '  Caused by: no such host'; exit 2")
    done = install(place, uv, NAME)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"localapi: {NAME} could not be installed: Failed to fetch the list: no such host. ")
    assert line.endswith(f": localapi install {NAME}")
    assert visible(place) == []


def test_packages_that_cannot_be_imported_are_no_environment(place: Path, uv: Uv) -> None:
    broken = "printf '#!/bin/sh\\necho wrong glibc; exit 1\\n'"
    uv.does(f'for python in {shlex.quote(str(place))}/.*.draft/bin/python; do {broken} > "$python"; done')
    done = install(place, uv, NAME)
    assert (done.returncode, visible(place)) == (1, [])
    assert "could not be installed: wrong glibc" in done.stderr


def test_one_that_is_killed_leaves_nothing_that_counts(place: Path, uv: Uv) -> None:
    with installing(place, uv) as process:
        process.kill()
        process.wait()
        assert not named(NAME, place).ready
    uv.does()
    assert install(place, uv, NAME).returncode == 0
    assert visible(place) == [named(NAME, place).folder.name]
    assert [each.name for each in place.iterdir() if each.name.endswith(".draft")] == []


def test_two_at_once_make_one(place: Path, uv: Uv) -> None:
    go_on = uv.folder / "go on"
    os.mkfifo(go_on)
    uv.does(f"echo > {shlex.quote(str(uv.entered))}; read line < {shlex.quote(str(go_on))}")
    command = [sys.executable, "-m", "localapi", "install", NAME]
    first = subprocess.Popen(command, env=variables(place, uv, {}), stderr=subprocess.PIPE, text=True)
    uv.entered.read_text()
    second = subprocess.Popen(command, env=variables(place, uv, {}), stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    assert "another process" in second.stderr.readline()
    go_on.write_text("\n")
    assert first.communicate(timeout=60)[1].splitlines()[-1].startswith("installed")
    assert "was installed by another process" in second.communicate(timeout=60)[1]
    assert (first.returncode, second.returncode, uv.builds) == (0, 0, 1)


def test_without_uv_it_says_how_to_get_it(place: Path, tmp_path: Path) -> None:
    done = install(place, None, NAME, PATH=str(tmp_path), HOME=str(tmp_path))
    if Path("/usr/local/bin/uv").exists() or Path("/opt/homebrew/bin/uv").exists():
        pytest.skip("uv is where it is always found")
    assert done.returncode == 1
    assert "pip install uv" in done.stderr
    assert done.stderr.endswith(f": localapi install {NAME}\n")


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_without_a_network_uv_says_so(place: Path, tmp_path: Path) -> None:
    done = install(place, None, NAME, UV_OFFLINE="1", UV_CACHE_DIR=str(tmp_path / "cache"))
    assert (done.returncode, visible(place)) == (1, [])
    assert "network" in done.stderr.splitlines()[-1]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, uv: Uv) -> None:
    (tmp_path / "file").touch()
    done = install(tmp_path / "file" / "below", uv, NAME)
    assert done.returncode == 1
    assert "cannot be installed in" in done.stderr
    assert "LOCALAPI_ENVIRONMENTS" in done.stderr


def test_the_list_says_what_is_there(place: Path, uv: Uv) -> None:
    install(place, uv, NAME)
    rows = [line.split() for line in install(place, uv).stdout.splitlines()]
    others = [[name, "missing"] for name in NAMES if name != NAME]
    assert [row[:2] for row in rows] == [["environment", "state"], [NAME, "installed"], *others]
    assert install(place, uv, "no-such").returncode == 2


def test_another_list_or_another_python_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = named(NAME, tmp_path).folder
    assert named(NAME, tmp_path).folder == usual
    monkeypatch.setattr(pinned_lists, "python_version", lambda: "3.99")
    assert named(NAME, tmp_path).folder != usual


def test_older_environments_are_named(place: Path, uv: Uv) -> None:
    old = place / f"{NAME}-0123456789ab"
    old.mkdir(parents=True)
    (place / "mlx-audio-0123456789ab").mkdir()
    done = install(place, uv, NAME)
    assert done.stderr.splitlines()[-1] == f"unused by this version of localapi; can be deleted: {old}"
    assert old.exists()


def test_one_whose_python_has_gone_is_made_again(place: Path, uv: Uv) -> None:
    install(place, uv, NAME)
    interpreter = named(NAME, place).interpreter
    interpreter.unlink()
    interpreter.symlink_to("/no/such/python")
    assert not named(NAME, place).ready
    assert install(place, uv, NAME).returncode == 0
    assert named(NAME, place).ready


@pytest.mark.parametrize(("variable", "value"), [("XDG_DATA_HOME", "data"), ("HOME", ".local/share")])
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one place")
def test_they_are_kept_where_a_users_data_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.delenv("LOCALAPI_ENVIRONMENTS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / value) if variable != "HOME" else str(tmp_path))
    assert Environment.named(NAME).folder.parent == tmp_path / value / "localapi" / "environments"


@pytest.mark.parametrize("name", NAMES)
def test_the_real_one_is_there_and_sees_nothing_of_the_server(
    name: str, installed: Callable[[str], Environment], tmp_path: Path
) -> None:
    """The package localapi alone, shown by the worker's bootstrap, whatever PYTHONPATH and the folder say."""
    environment, server_packages = installed(name), str(Path(pytest.__file__).parent.parent)
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('the current folder was imported')")
    code = (
        f"import runpy; runpy.run_path({str(ROOT / 'localapi' / 'worker' / 'bootstrap.py')!r})"
        f"['show_package'](__import__('pathlib').Path({str(ROOT / 'localapi')!r}))\n"
        "import localapi.worker.__main__, localapi.audio.decoder, importlib.util as u, sys\n"
        "print([name for name in ('quart', 'hypercorn', 'piper', 'tests', 'torch') if u.find_spec(name)], "
        f"{{ {str(ROOT)!r}, {server_packages!r} }} & set(sys.path))"
    )
    done = subprocess.run(
        [environment.interpreter, "-I", "-c", code],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), server_packages])},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[] set()"
