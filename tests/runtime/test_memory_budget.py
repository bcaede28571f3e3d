"""Models that do not fit together: who is loaded, who gives way, who waits, and what that takes, seen from outside."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from localapi.backends.options import parse_memory
from tests.piper_voice import make_voice
from tests.server import Reply, Server, save, serving, until

CHAT = "/v1/chat/completions"
SPEECH = "/v1/audio/speech"
ONE, TWO, THREE = "150MB", "230MB", "330MB"
"""Room for so many workers with the demo and no more: each takes 85 to 100 MB, and is expected to take 111 at first."""


def chats(budget: str, **options: str) -> str:
    """A manifest of demos; what else their entries say."""
    entries = "".join(f"  {name}: {{backend: mlx-lm, path: demo{more}}}\n" for name, more in options.items())
    return f"server: {{memory_budget: {budget}, drain_seconds: 5}}\nchat:\n{entries}"


def ask(model: str, **options: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Count to five."}], "temperature": 0, **options}


def loaded(server: Server) -> set[str]:
    return {model["id"] for model in server.status()["models"] if model["state"] == "ready"}


@contextlib.contextmanager
def talking(server: Server, model: str) -> Iterator[Any]:
    """An answer that never ends by itself."""
    with server.client() as client:
        stream = client.chat.completions.create(**ask(model, stream=True))
        next(iter(stream))
        yield stream
        stream.close()


@contextlib.contextmanager
def asking(server: Server, body: dict[str, Any]) -> Iterator[list[Reply]]:
    """A request on its way; its reply is in the list at the end."""
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(server.request("POST", CHAT, body)))
    thread.start()
    yield replies
    thread.join()


def test_the_model_that_was_used_least_lately_gives_way_and_a_pinned_one_does_not(tmp_path: Path) -> None:
    with serving(tmp_path, chats(THREE, pinned=", pin: true", a="", b="", c="")) as server:
        until(lambda: loaded(server) == {"pinned"})
        for name in ("a", "b", "a", "c"):
            assert server.request("POST", CHAT, ask(name)).status == 200
        until(lambda: loaded(server) == {"pinned", "a", "c"})
        assert server.wait_for(r"b: unloaded: its \d+ MB are needed")
        memory = server.status()["memory"]
        assert memory["used_bytes"] <= memory["budget_bytes"] == 330 * 2**20


def test_a_busy_model_is_not_ended_and_the_load_waits_its_turn_in_sight(tmp_path: Path, endless_model: Path) -> None:
    busy = f"backend: mlx-lm, path: {endless_model}"
    text = f"server: {{memory_budget: {ONE}}}\nchat: {{busy: {{{busy}}}, a: {{backend: mlx-lm, path: demo}}}}"
    with serving(tmp_path, text) as server:
        with talking(server, "busy") as stream, asking(server, ask("a", stream=True)) as replies:
            until(lambda: server.status()["memory"]["waiting"] == ["a"])
            # After a while the busy model takes no new requests, and still answers the one that it has.
            server.wait_for(r"busy: accepts no new requests")
            assert server.model("busy")["leases"] == 1
            stream.close()
        assert replies[0].status == 200
        [progress] = re.findall(rb'^: ({"progress":{"state":"memory".*})$', replies[0].body, re.MULTILINE)[:1]
        assert json.loads(progress)["progress"].items() >= {"model": "a", "position": 1, "total": 150 * 2**20}.items()
        assert replies[0].body.endswith(b"data: [DONE]\n\n")
        assert loaded(server) == {"a"}


def test_a_model_that_is_always_busy_does_not_starve_another(tmp_path: Path) -> None:
    with serving(tmp_path, chats(ONE, busy="", rare="")) as server:
        done = threading.Event()
        failures: list[Reply] = []

        def keep_busy() -> None:
            while not done.is_set():
                reply = server.request("POST", CHAT, ask("busy"))
                if reply.status != 200:
                    failures.append(reply)

        threads = [threading.Thread(target=keep_busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: loaded(server) == {"busy"})
            assert server.request("POST", CHAT, ask("rare")).status == 200
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert failures == []


def test_a_model_that_can_never_fit_is_refused_with_both_numbers_until_it_can(tmp_path: Path) -> None:
    with serving(tmp_path, chats("100MB", a="")) as server:
        reply = server.request("POST", CHAT, ask("a"))
        message = reply.json()["error"]["message"]
        assert (reply.status, reply.headers["x-should-retry"]) == (503, "false")
        assert re.fullmatch(r"a needs about 11\d MB, memory_budget is 100 MB\. Raise server\.memory_budget\.", message)
        save(tmp_path / "models.yaml", chats(ONE, a=""))
        server.reload()
        assert server.request("POST", CHAT, ask("a")).status == 200


def test_who_waits_for_memory_too_long_is_refused_and_leaves_the_line(tmp_path: Path, endless_model: Path) -> None:
    busy = f"backend: mlx-lm, path: {endless_model}"
    more = "queue_timeout_seconds: 0.5"
    text = f"server: {{memory_budget: {ONE}}}\nchat: {{busy: {{{busy}}}, a: {{backend: mlx-lm, path: demo, {more}}}}}"
    with serving(tmp_path, text) as server, talking(server, "busy"):
        assert server.request("POST", CHAT, ask("a")).status == 429
        until(lambda: server.status()["memory"]["waiting"] == [])


def test_a_warm_swap_counts_twice_and_a_cold_one_once(tmp_path: Path) -> None:
    with serving(tmp_path, chats(ONE, a="")) as server:
        assert server.request("POST", CHAT, ask("a")).status == 200
        save(tmp_path / "models.yaml", chats(ONE, a=", context_length: 512"))
        reason = server.reload()["not_loaded"]["a"]
        assert re.search(r"memory_budget is 150 MB, and a \d+ MB must stay\. Set swap: cold for it", reason)
        assert server.request("POST", CHAT, ask("a")).status == 200
        save(tmp_path / "models.yaml", chats(ONE, a=", context_length: 512, swap: cold"))
        assert server.reload()["ok"]
        assert server.request("POST", CHAT, ask("a")).status == 200


def test_models_to_preload_do_not_take_each_others_place(tmp_path: Path) -> None:
    pre = ", preload: true"
    with serving(tmp_path, chats(TWO, a=pre, b=pre, c=pre, pinned=", pin: true")) as server:
        until(lambda: server.model("c")["last_error"] and server.model("b")["last_error"])
        until(lambda: loaded(server) == {"pinned", "a"})
        status = server.status()
        assert [model["loads"] for model in status["models"]] == [1, 0, 0, 1]
        assert [line.partition(",")[0] for line in status["warnings"]] == [
            "b is to be preloaded",
            "c is to be preloaded",
        ]
        assert "Its first request loads it in place of others. Preload or pin fewer" in status["warnings"][0]
        assert {model["id"]: model["state"] for model in status["models"]}["b"] == "unloaded"
        assert server.request("GET", "/health/ready").status == 200  # it answers all of them
        server.wait_for(r"c: Not preloaded: it needs about \d+ MB, and memory_budget \(230 MB\) leaves")
        # A request is another matter.
        assert server.request("POST", CHAT, ask("b")).status == 200
        assert loaded(server) == {"pinned", "b"}
        assert [line.partition(",")[0] for line in server.status()["warnings"]] == [
            "a is to be preloaded",
            "c is to be preloaded",
        ]
        assert re.search(r"before a request came: its \d+ MB are needed for b\.", server.model("a")["last_error"])
        save(tmp_path / "models.yaml", chats("520MB", a=pre, b=pre, c=pre, pinned=", pin: true"))
        server.reload()
        until(lambda: loaded(server) == {"pinned", "a", "b", "c"})
        assert server.status()["warnings"] == []


def test_pinned_models_that_can_never_fit_together_are_told(tmp_path: Path) -> None:
    pin = ", pin: true"
    with serving(tmp_path, chats(ONE, a=pin, b=pin)) as server:
        until(lambda: loaded(server) == {"a"} and server.status()["warnings"])
        [warning] = server.status()["warnings"]
        assert re.fullmatch(
            r"b is pinned, but not loaded: b needs about 11\d MB, memory_budget is 150 MB, and a \d+ MB must stay\. "
            r"Pin fewer models, or raise server\.memory_budget\.",
            warning,
        )
        ready = server.request("GET", "/health/ready")
        assert (ready.status, ready.json()["models"]) == (503, ["b"])
        save(tmp_path / "models.yaml", chats(TWO, a=pin, b=pin))
        server.reload()
        until(lambda: loaded(server) == {"a", "b"})
        assert server.status()["warnings"] == []
        assert server.model("a")["loads"] == 1


def test_a_model_to_preload_that_could_never_fit_is_loaded_when_it_can(tmp_path: Path) -> None:
    pre = ", preload: true"
    with serving(tmp_path, chats("50MB", a=pre, b="")) as server:
        server.wait_for("a: not loaded: a needs about")
        assert server.request("POST", CHAT, ask("b")).status == 503
        assert (server.model("b")["state"], server.request("GET", "/health/ready").status) == ("failed", 503)
        assert [line.partition(",")[0] for line in server.status()["warnings"]] == ["a is to be preloaded"]
        save(tmp_path / "models.yaml", chats(ONE, a=pre, b=""))
        server.reload()
        assert (server.model("b")["state"], server.model("b")["last_error"]) == ("unloaded", None)
        until(lambda: loaded(server) == {"a"})
        assert server.status()["warnings"] == []


def test_pinned_models_that_no_longer_fit_stay_and_that_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, chats(ONE, a=", pin: true")) as server:
        until(lambda: loaded(server) == {"a"})
        save(tmp_path / "models.yaml", chats("50MB", a=", pin: true"))
        server.reload()
        [warning] = server.status()["warnings"]
        assert re.match(r"pinned models exceed memory_budget \(50 MB\): a \d+ MB\.", warning)
        assert server.wait_for("warning: pinned models exceed")
        assert loaded(server) == {"a"}


class Outside:
    """The memory of all workers, as the system tells it, all the time."""

    def __init__(self, server: Server) -> None:
        self.most = 0
        self._server = server
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._done.is_set():
            total = 0
            for worker in psutil.Process(self._server.process.pid).children():
                with contextlib.suppress(psutil.Error):
                    # A child that has not begun to be a worker yet is a copy of the server, and shares its memory.
                    total += worker.memory_info().rss if "localapi.worker" in worker.cmdline() else 0
            self.most = max(self.most, total)
            self._done.wait(0.01)  # without a pause it would take a core from those that it measures

    def __enter__(self) -> Outside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_models_in_random_use_stay_within_the_budget_and_nobody_starves(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = 150 if request.config.getoption("--long") else 16
    make_voice(tmp_path / "tiny.onnx")
    chat = [f"chat{number}" for number in range(5)]
    speech = [f"speech{number}" for number in range(5)]
    voices = "".join(
        f"  {name}: {{backend: piper, path: ./tiny.onnx, volume: {at + 1}}}\n" for at, name in enumerate(speech)
    )
    text = chats("300MB", **dict.fromkeys(chat, "")) + f"speech:\n{voices}"
    with serving(tmp_path, text) as server, Outside(server) as outside:
        budget = server.status()["memory"]["budget_bytes"]
        left = iter(range(count))
        lock = threading.Lock()
        waits: list[float] = []
        wrong: list[Reply] = []

        def use(seed: int) -> None:
            choose = random.Random(seed)
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                name = choose.choice([*chat, *speech])
                began = time.monotonic()
                if name in chat:
                    reply = server.request("POST", CHAT, ask(name))
                else:
                    reply = server.request("POST", SPEECH, {"model": name, "input": "Hello there, all of you."})
                waits.append(time.monotonic() - began)
                if reply.status != 200:
                    wrong.append(reply)

        threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = server.status()
        evicted = sum("are needed" in line for line in server.lines)
    print(
        f"{count} requests, {evicted} models gave way, at most {outside.most / 2**20:.0f} MB of {budget / 2**20:.0f},"
    )
    print(f"longest wait {max(waits):.1f} s, mean {sum(waits) / len(waits):.1f} s")
    assert wrong == []
    assert evicted > 0
    assert outside.most <= budget
    assert {model["worker_deaths"] for model in status["models"]} == {0}
    assert max(waits) < 60


@pytest.mark.parametrize(
    ("said", "size"),
    [("8GB", 8 * 2**30), ("512 mb", 2**29), ("1.5GiB", 3 * 2**29), (12345, 12345), ("100B", 100), (None, None)],
)
def test_an_amount_of_memory_is_read(said: object, size: int | None) -> None:
    assert parse_memory(said) == size


def test_a_share_of_memory_is_the_machines() -> None:
    assert parse_memory("50%") == psutil.virtual_memory().total // 2


@pytest.mark.parametrize(
    "said", ["8 apples", "GB", 0, -1, True, "", [8], "50 percent", "0GB", "0%", "9" * 400 + "GB", "9" * 400 + "%"]
)
def test_nonsense_is_no_amount_of_memory(said: object) -> None:
    with pytest.raises(ValueError, match="should be an amount of memory"):
        parse_memory(said)
