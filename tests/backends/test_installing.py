"""Installing while the server runs: reports, and nothing that goes on when nobody waits."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path

import psutil
import pytest

from localapi.backends.local_model import install
from localapi.environments import Environment
from localapi.worker.protocol import Loading
from tests.mlx_audio_models import ROOT


async def test_a_cancelled_installation_ends_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = tmp_path / "entered"
    os.mkfifo(entered)
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\necho Resolved 3 packages\necho > {shlex.quote(str(entered))}\nsleep 600\n")
    uv.chmod(0o755)
    for name, value in {"UV": uv, "LOCALAPI_ENVIRONMENTS": tmp_path / "new", "PYTHONPATH": ROOT}.items():
        monkeypatch.setenv(name, str(value))
    environment = Environment.named("mlx-audio")
    reports: list[Loading] = []
    others = set(psutil.Process().children(recursive=True))  # servers of other tests in this process
    task = asyncio.create_task(install(environment, reports.append))
    await asyncio.to_thread(entered.read_text)
    children = set(psutil.Process().children(recursive=True)) - others
    assert children
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert reports[0] == Loading("installing mlx-audio")
    assert not environment.ready
