"""Ranks that die, hang and do not come, in a server: what requests get, and how the model comes back."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.server import Server, save, serving, until

pytestmark = pytest.mark.long

CHAT = "/v1/chat/completions"
MANIFEST = "chat: {{two: {{backend: mlx-lm, path: {path}, shards: 2, stall_seconds: {stall}}}}}"


def ask(**options: Any) -> dict[str, Any]:
    return {"model": "two", "messages": [{"role": "user", "content": "Count to five."}], "temperature": 0, **options}


def load(server: Server) -> list[int]:
    assert server.request("POST", "/admin/models/two/load").status == 200
    return [rank["pid"] for rank in server.model("two")["place"]["parts"]]


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_lost_ranks_end_together_and_come_back_together(tmp_path: Path, endless_model: Path) -> None:
    with serving(tmp_path, MANIFEST.format(path=endless_model, stall=120)) as server:
        pids = load(server)
        status = server.model("two")
        assert [rank["state"] for rank in status["place"]["parts"]] == ["ready", "ready"]
        assert status["memory_bytes"] >= sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2

        # One dies in the middle of a stream.
        stream = server.client().chat.completions.create(**ask(stream=True, max_tokens=5000))
        next(stream)
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(openai.APIError):
            for _ in stream:
                pass
        until(lambda: gone(pids))
        assert not [line for line in server.lines if "Traceback" in line]

        # One hangs before there is any output: the request is answered by the next ones.
        pids = load(server)
        save(server.folder / "models.yaml", MANIFEST.format(path=endless_model, stall=2))
        until(lambda: server.status()["revision"] == 2)
        os.kill(pids[1], signal.SIGSTOP)
        reply = server.request("POST", CHAT, ask(max_tokens=5))
        assert reply.status == 200, reply.body
        assert gone(pids)
        assert server.model("two")["worker_deaths"] == 2

        # One hangs while there is nothing to do.
        pids = load(server)
        os.kill(pids[1], signal.SIGSTOP)
        until(lambda: gone(pids))

        # One does not come.
        with ThreadPoolExecutor(1) as thread:
            loading = thread.submit(server.request, "POST", "/admin/models/two/load")
            until(lambda: server.model("two")["place"]["parts"])
            pids = [rank["pid"] for rank in server.model("two")["place"]["parts"]]
            os.kill(pids[1], signal.SIGSTOP)
            assert loading.result().status == 503
        assert gone(pids)
        assert "hung" in server.model("two")["last_error"]

        load(server)
    assert gone(pids)
