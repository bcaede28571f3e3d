"""Shared by several test files: real models, small enough to be made here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from localapi.environments import Environment
from tests import mlx_audio_models
from tests.made_once import folder_of_the_run, made_once

DIALOGUES = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Count to five.": "1 2 3 4 5",
    "Say hello in two scripts.": "你好！ Привет! 👋🏽",  # noqa: RUF001
    "Tell me a story.": "Once upon a time a small server answered every request, one by one, until all were done.",
}
"""Dialogues that the tiny model answers word for word at temperature 0."""

_TRAIN = "import json, sys; from pathlib import Path; from localapi.worker.blas import install_openblas; "
_TRAIN += "install_openblas(); from tools.demo.train import train; "
_TRAIN += "train(json.loads(sys.argv[1]).items(), Path(sys.argv[2]))"


Made = Callable[[str, Callable[[Path], object]], Path]
Draws = Callable[[int], int]
Children = Callable[[], set[psutil.Process]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run tests under load for minutes instead of seconds")
    parser.addoption("--soak", type=float, metavar="MINUTES", help="run the soak test so long; from 4 on to be flat")


def pytest_configure(config: pytest.Config) -> None:
    # Random cases and mixed load take minutes of CPU time: only where they are asked for.
    asked_for = config.getoption("--long") or config.getoption("--soak")
    if not config.option.markexpr and not asked_for:
        config.option.markexpr = "not fuzz and not soak and not ray and not long"
    # A shell starts background jobs with SIGINT ignored, nohup does so with SIGHUP, and the programs that the tests
    # start would inherit that. They do not inherit a handler.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    # Hundreds of servers and workers are started: where the environment forbids to keep what Python compiled, each
    # would compile the same modules again, which was a third of a run.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # What servers keep for their users must not reach the one who runs the tests.
    if not hasattr(config, "workerinput"):  # pytest-xdist's workers inherit it
        state = tempfile.TemporaryDirectory(prefix="localapi-state-", ignore_cleanup_errors=True)
        os.environ["XDG_STATE_HOME"] = state.name
        config.add_cleanup(state.cleanup)
    # The same cases each time, so that a failure belongs to the change; others where there is time to look for them.
    # Without a deadline: on a busy machine one case takes longer than hypothesis' 200 ms, whatever the code does.
    settings.register_profile("same", derandomize=True, database=None, deadline=None)
    settings.register_profile("long", deadline=None)
    settings.register_profile("everyday", settings.get_profile("same"), max_examples=25)
    everyday = "everyday" if config.option.markexpr == "everyday" else "same"
    settings.load_profile("long" if config.getoption("--long") else everyday)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m everyday` leave the rest unread: to import it takes longer than the everyday tests."""
    if config.option.markexpr != "everyday":
        return None
    files = collection_path.rglob("test_*.py") if collection_path.is_dir() else [collection_path]
    if any("pytest.mark.everyday" in path.read_text("utf-8") for path in files):
        return None
    return collection_path.is_dir() or collection_path.match("test_*.py") or None


@pytest.fixture
def children() -> Children:
    """Gives the child processes that were started since, and are there. Those of other tests' libraries are not."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: set(psutil.Process().children(recursive=True)) - before


@pytest.fixture(scope="session")
def draws(pytestconfig: pytest.Config) -> Draws:
    """Return the number of random cases of a test: ten times as many with --long."""
    return lambda count: 10 * count if pytestconfig.getoption("--long") else count


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two more than there are cores, up to six: most tests wait for a server or a worker to start.

    Everyday tests do not, and each process spends some seconds on imports before the first of them.
    """
    cores = os.cpu_count() or 1
    return min(4, cores) if config.option.markexpr == "everyday" else min(6, cores + 2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the files of each folder evenly over the run, if several processes share it.

    Neighbours are alike: those of the console would have each process drive a browser at one time, and later on all
    would wait for clocks.
    """
    if not hasattr(config, "workerinput"):
        return
    folders: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(item.path for item in items):
        folders.setdefault(path.parent, []).append(path)
    place = {path: (at + 0.5) / len(files) for files in folders.values() for at, path in enumerate(files)}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Gives the folder of that name, filled by whoever of the run's processes asks for it first."""
    models = folder_of_the_run(tmp_path_factory) / "made"
    return lambda name, make: made_once(models / name, make)


@pytest.fixture(scope="session")
def tiny_model(made: Made) -> Path:
    """A real Qwen3 chat model of about 1 MB, trained here in some ten seconds."""
    return made("tiny", lambda folder: _train(folder, _TRAIN))


@pytest.fixture(scope="session")
def endless_model(tiny_model: Path, made: Made) -> Path:
    """The same weights with an end token that they never choose at temperature 0: it talks until it is stopped."""
    return made("endless", lambda folder: _without_an_end(tiny_model, folder))


def _without_an_end(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    never = tokenizer["model"]["vocab"]["<|endoftext|>"]
    for token in tokenizer["added_tokens"]:
        # What the model writes where it would end is to be seen: otherwise its streams are silent from there on.
        token["special"] = token["content"] != "<|im_end|>" and token["special"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, change in {
        "config.json": {"eos_token_id": never, "max_position_embeddings": 100_000},
        "tokenizer_config.json": {"eos_token": "<|endoftext|>"},
    }.items():
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **change}))


@pytest.fixture(scope="session")
def untrained_model(made: Made) -> Path:
    """A real model that has learnt next to nothing: what it writes is noise, so a form that holds is not its own."""
    return made("untrained", lambda folder: _train(folder, _TRAIN.replace("[2]))", "[2]), steps=2)")))


def _train(folder: Path, code: str) -> None:
    subprocess.run(
        [sys.executable, "-c", code, json.dumps(DIALOGUES), folder], check=True, cwd=Path(__file__).parent.parent
    )


@pytest.fixture(scope="session")
def installed(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Gives the environment of a backend, installed where the next run finds it again, if there may be such a place."""
    given = os.environ.get("LOCALAPI_ENVIRONMENTS")
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)  # there is none with -p no:cacheprovider
    kept = cache.mkdir("environments") if cache is not None else folder_of_the_run(tmp_path_factory) / "environments"
    folder = Path(given) if given else kept
    return lambda name: mlx_audio_models.installed(name, folder)


@pytest.fixture(scope="session", params=mlx_audio_models.PACKAGES)
def mlx_audio(
    request: pytest.FixtureRequest,
    installed: Callable[[str], Environment],
    tmp_path_factory: pytest.TempPathFactory,
) -> Environment:
    """The environment of mlx-audio-plus, then that of mlx-audio, each with the architectures of the tests."""
    return mlx_audio_models.with_architectures(installed(request.param), tmp_path_factory.mktemp("environments"))
