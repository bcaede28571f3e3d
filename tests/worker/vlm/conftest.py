"""The environment of mlx-vlm, really installed, and servers of tiny models in it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from localapi.environments import Environment
from tests.mlx_audio_models import ROOT
from tests.server import Server, serving

SensingServer = Callable[[str, str], AbstractContextManager[Server]]
"""Start a server of a tiny model: the sense that it has, and its entries with the folder `./model`."""


@pytest.fixture(scope="module")
def environment(installed: Callable[[str], Environment]) -> Environment:
    return installed("mlx-vlm")


@pytest.fixture(scope="module")
def tiny_model(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the tiny model with a sense: a folder `model`."""

    def made(sense: str) -> Path:
        folder = tmp_path_factory.mktemp(sense) / "model"
        maker = [environment.interpreter, "-I", Path(__file__).with_name("tiny_models.py"), sense]
        subprocess.run([*maker, ROOT / "localapi" / "demo" / "model", folder], check=True, timeout=300)
        return folder

    return made


@pytest.fixture(scope="module")
def sensing_server(environment: Environment, tiny_model: Callable[[str], Path]) -> SensingServer:
    @contextmanager
    def started(sense: str, entries: str) -> Iterator[Server]:
        variables = {"LOCALAPI_ENVIRONMENTS": str(environment.folder.parent)}
        with serving(tiny_model(sense).parent, f"chat:\n{entries}", env=variables) as server:
            yield server

    return started
