"""Models on the nodes of a real Ray cluster. All tests share it, so its start is paid for once."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.server import Server, save, serving, stream_text, until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra: uv sync --extra ray"),
]

QUESTION = "What can you do?"
END_TOKEN = "1"
"""End token of the demo model."""


class Nodes:
    """The nodes of the cluster."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()
        self._do("add right")

    def _do(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def kill(self, name: str) -> None:
        self._do(f"kill {name}")

    def add(self, name: str) -> None:
        self._do(f"add {name}")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes, left and right."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    program = [sys.executable, str(Path(__file__).with_name("nodes.py"))]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        children: list[psutil.Process] = []
        try:
            yield Nodes(process)
            children = psutil.Process(process.pid).children(recursive=True)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)
            process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def manifest(nodes: Nodes, *, moving: str = "left") -> str:
    return f"""
server:
  cluster: {{ray: "{nodes.address}"}}
chat:
  right: {{backend: mlx-lm, path: demo, place: {{resources: {{only_right: 1}}}}}}
  named: {{backend: mlx-lm, path: demo, place: {{node: left}}}}
  moving: {{backend: mlx-lm, path: demo, place: {{node: {moving}}}, swap: warm}}
  twins:
    {{backend: mlx-lm, path: demo, max_batch: 1, place: {{resources: {{any: 3}}}}, replicas: {{max: 2, idle: 1}}}}
  ranks: {{backend: mlx-lm, path: demo, shards: 2, place: {{spread: true}}}}
  apart: {{backend: mlx-lm, path: demo, shards: 3, place: {{spread: strict}}}}
  impossible: {{backend: mlx-lm, path: demo, place: {{gpus: 64}}}}
  nowhere: {{backend: mlx-lm, path: demo, place: {{node: middle}}}}
  absent: {{backend: mlx-lm, path: /models/absent, place: {{node: left}}}}
"""


@pytest.fixture(scope="module")
def server(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), manifest(nodes)) as server:
        yield server


def ask(server: Server, model: str) -> str | None:
    with server.client() as client:
        reply = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0
        )
    return reply.choices[0].message.content


def test_a_model_streams_from_the_node_that_has_its_resources(server: Server) -> None:
    with server.client() as client:
        stream = client.chat.completions.create(
            model="right", messages=[{"role": "user", "content": QUESTION}], temperature=0, stream=True
        )
        text = stream_text(stream)

    model = server.model("right")
    assert text == ask(server, "right")
    assert model["place"]["at"] == "right"
    assert psutil.Process(model["place"]["pid"]).is_running()


def test_memory_on_a_node_is_shown_and_not_counted_here(server: Server) -> None:
    ask(server, "right")

    until(lambda: server.model("right")["memory_bytes"])
    assert server.status()["memory"]["used_bytes"] == 0


def test_the_status_has_the_nodes_and_their_models(server: Server) -> None:
    ask(server, "right")

    cluster = server.status()["cluster"]
    assert cluster["joined"]
    assert {node["name"]: "right" in node["models"] for node in cluster["nodes"] if node["alive"]} == {
        "left": False,
        "right": True,
    }


def test_the_included_model_is_the_one_of_the_node(server: Server) -> None:
    assert ask(server, "named")
    assert server.model("named")["place"]["at"] == "left"


@pytest.mark.parametrize(
    ("model", "facts"),
    [
        ("apart", ["3 ranks", "right"]),
        ("impossible", ["64 GPUs", "left"]),
        ("nowhere", ["middle", "right"]),
        ("absent", ["/models/absent", "left"]),
    ],
)
def test_what_cannot_be_placed_says_why(server: Server, model: str, facts: list[str]) -> None:
    reply = server.request(
        "POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "x"}]}
    )

    assert reply.status == 503
    assert all(fact in reply.json()["error"]["message"] for fact in facts)


def test_the_ranks_of_a_model_run_on_different_nodes(server: Server) -> None:
    assert ask(server, "ranks") == ask(server, "right")

    ranks = server.model("ranks")["place"]["parts"]
    assert [rank["state"] for rank in ranks] == ["ready", "ready"]
    assert {rank["at"] for rank in ranks} == {"left", "right"}
    assert all("ranks" in node["models"] for node in server.status()["cluster"]["nodes"] if node["alive"])


def test_unloading_ends_the_process_on_the_node(server: Server) -> None:
    ask(server, "named")
    worker = psutil.Process(server.model("named")["place"]["pid"])

    assert server.request("POST", "/admin/models/named/unload").status == 200
    assert has_ended(worker)


def test_an_edit_moves_a_model_to_another_node_without_a_lost_request(server: Server, nodes: Nodes) -> None:
    answer = ask(server, "moving")
    moved = threading.Event()

    def keep_asking() -> set[str | None]:
        answers = {ask(server, "moving")}
        while not moved.is_set():
            answers.add(ask(server, "moving"))
        return answers

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(keep_asking) for _ in range(3)]
        save(server.folder / "models.yaml", manifest(nodes, moving="right"))
        until(lambda: server.model("moving")["place"]["at"] == "right")
        moved.set()
        assert [each.result() for each in asking] == [{answer}] * 3


def test_models_go_on_when_a_node_is_lost_under_load_and_come_back_where_there_is_room(
    server: Server, nodes: Nodes
) -> None:
    whole = long_answer(server, "twins")
    enough = threading.Event()

    def keep_asking(model: str) -> set[str]:
        answers = set()
        while not enough.is_set():
            # What has begun on the lost node fails; what has not is answered elsewhere.
            with contextlib.suppress(openai.APIError):
                answers.add(long_answer(server, model))
        return answers

    with ThreadPoolExecutor() as pool:
        asking = [pool.submit(keep_asking, model) for model in ("twins", "twins", "twins", "ranks")]
        try:
            until(lambda: len(replicas(server)) == 2)
            assert {each["at"] for each in replicas(server)} == {"left", "right"}
            workers = [*replicas(server), *server.model("ranks")["place"]["parts"]]
            processes = [psutil.Process(worker["pid"]) for worker in workers if worker["at"] == "right"]
            nodes.kill("right")
            until(lambda: [rank["at"] for rank in server.model("ranks")["place"]["parts"]] == ["left", "left"])
            until(lambda: "any" in (server.model("twins")["place"]["replicas"]["held_back"] or ""))
            assert [each["at"] for each in replicas(server)] == ["left"]
            until(lambda: all(has_ended(process) for process in processes))

            nodes.add("right")
            until(lambda: {each["at"] for each in replicas(server)} == {"left", "right"})
        finally:
            enough.set()
        assert {answer for each in asking for answer in each.result()} <= {whole}
    until(lambda: len(replicas(server)) == 1)  # the other one was idle


def replicas(server: Server) -> list[Any]:
    """The replicas that are ready."""
    return [each for each in server.model("twins")["place"]["parts"] if each["state"] == "ready"]


def test_a_node_that_joined_later_can_be_used(server: Server) -> None:
    until(lambda: server.request("POST", "/admin/models/right/load").status == 200)
    assert server.model("right")["place"]["at"] == "right"


def long_answer(server: Server, model: str) -> str:
    """An answer that takes a while, because the end token is forbidden."""
    with server.client() as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            logit_bias={END_TOKEN: -100},
            max_tokens=40,
            stream=True,
        )
        return stream_text(stream)


def has_ended(process: psutil.Process) -> bool:
    """Return True if a process has ended, reaped by its parent or not."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_nothing_is_left_of_a_server_that_was_killed(nodes: Nodes, tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", manifest(nodes))
    server = Server(tmp_path)
    ask(server, "named")
    worker = psutil.Process(server.model("named")["place"]["pid"])

    status = server.stop(signal.SIGKILL)
    assert status == -signal.SIGKILL
    until(lambda: has_ended(worker))
