"""A worker of a real server: what it computes with, and where the reason is told if that is MLX's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from localapi.backends import process
from localapi.system.openblas_library import SWITCH, package_library
from tests.server import serving

pytestmark = pytest.mark.skipif(package_library() is None, reason="scipy-openblas32 is for Linux on x86-64 and arm64")

DEMO = "chat: {demo: {backend: mlx-lm, path: demo, preload: true}, bird: {backend: echo, preload: true}}"
ASKED = {"model": "demo", "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


def test_a_worker_answers_with_openblas_and_the_server_does_not_load_it(tmp_path: Path) -> None:
    with serving(tmp_path, DEMO) as server:
        server.wait_for("demo: loaded")
        reply = server.request("POST", "/v1/chat/completions", ASKED).json()
        (worker,) = server.workers()
        loaded = {
            "worker": "openblas" in Path(f"/proc/{worker.pid}/maps").read_text(),
            "server": "openblas" in Path(f"/proc/{server.process.pid}/maps").read_text(),
        }
    assert "Paris" in reply["choices"][0]["message"]["content"]
    assert loaded == {"worker": True, "server": False}


def test_the_log_of_a_load_says_why_mlx_computes_with_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.so").write_text("not a library")
    with serving(tmp_path, DEMO, env={SWITCH: str(tmp_path / "mine.so")}) as server:
        line = server.wait_for(r"demo: MLX uses .*").group(0)
        reply = server.request("POST", "/v1/chat/completions", ASKED).json()
    assert "mine.so" in line
    assert "Paris" in reply["choices"][0]["message"]["content"]


def test_an_environment_of_its_own_is_told_where_the_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert process.worker_variables(Path(sys.executable))[SWITCH] == str(package_library())
    assert SWITCH not in process.worker_variables(None)
    monkeypatch.setenv(SWITCH, "off")
    assert process.worker_variables(Path(sys.executable))[SWITCH] == "off"
