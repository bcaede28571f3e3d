"""`localapi bench`: what it measures, and what it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localapi.cli.bench import bars
from localapi.client.measuring import Level, Timing, prompt
from tests.server import Server, serving
from tests.terminal import CTRL_C, terminal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> Iterator[Server]:
    endless = {"backend": "mlx-lm", "path": str(endless_model), "max_batch": 8}
    chat = {
        "echo": {"backend": "echo"},
        "endless": endless,
        "strict": {**endless, "max_concurrent": 1, "max_waiting": 0},
    }
    with serving(tmp_path_factory.mktemp("bench"), json.dumps({"chat": chat})) as server:
        yield server


def bench(server: Server, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localapi", "bench", *line.split(), "--port", str(server.port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_it_counts_what_a_real_model_wrote(server: Server) -> None:
    done = bench(server, "endless --streams 1,3 --tokens 8 --prompt-tokens 40 --rounds 2 --json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["complete"]) == ("endless", True)
    for level, streams in zip(told["levels"], (1, 3), strict=True):
        assert (level["streams"], level["requests"], level["failed"]) == (streams, 2 * streams, 0)
        assert level["tokens_per_answer"] == 8
        assert 20 < level["prompt_tokens"] < 80
        assert level["cached_tokens"] < 20  # the template's beginning at most
        first = level["first_token_seconds"]
        assert 0 < first["median"] <= first["p90"]
        assert level["tokens_per_second"] > 0


def test_it_prints_a_table_and_bars(server: Server) -> None:
    done = bench(server, "echo --streams 1,2 --tokens 8 --prompt-tokens 20 --rounds 1")
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "streams"
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert len([line for line in lines if "█" in line]) == 2


def test_requests_that_fail_are_counted_and_shown_and_never_averaged_in(server: Server) -> None:
    done = bench(server, "strict --streams 1,8 --tokens 500 --prompt-tokens 20 --rounds 1 --json")
    assert done.returncode == 1
    alone, together = json.loads(done.stdout)["levels"]
    assert (alone["failed"], alone["tokens_per_answer"]) == (0, 500)
    assert together["requests"] == 8
    assert 1 <= together["failed"] <= 7
    assert sum(together["errors"].values()) == together["failed"]
    assert together["tokens_per_second"] is together["first_token_seconds"]["median"] is None


def test_ctrl_c_shows_what_was_measured_and_frees_the_model(server: Server, tmp_path: Path) -> None:
    arguments = ("bench", "endless", "--streams", "1,2", "--tokens", "8", "--prompt-tokens", "20", "--rounds", "500")
    with terminal(tmp_path, *arguments, env={"PORT": str(server.port)}) as opened:
        opened.wait_for(r"1 concurrent.* [1-9]\d*/1500")
        opened.type(CTRL_C)
        assert opened.end() == 130
        assert "interrupted" in opened.text
        assert "tokens/s by streams" in opened.text
    while server.model("endless")["leases"]:
        pass  # the time limit of the test is the bound


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("nobody", 1, "The model 'nobody' does not exist"),
        ("echo --streams 1,x", 2, "is not a list of numbers such as 1,2,4"),
        ("echo --streams 0", 2, "each number must be from 1 to 256"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(server: Server, line: str, status: int, words: str) -> None:
    done = bench(server, line)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr


def test_medians_and_ninths_of_ten() -> None:
    level = Level(1, requests=10, timings=[Timing(number, 4, None, 2, 0) for number in range(1, 11)], speeds=[1, 5, 3])
    told = level.summary()
    assert told["first_token_seconds"] == {"median": 5.5, "p90": 9}
    assert (told["tokens_per_second"], told["tokens_per_second_per_stream"]) == (3, None)


def test_prompts_share_no_beginning() -> None:
    assert len(prompt(50, "a").split()) == 50
    assert prompt(50, "a") == prompt(50, "a") != prompt(50, "b")


def test_bars_are_as_long_as_their_values() -> None:
    assert bars({"1": 2, "16": 8}, width=4) == [" 1 █    2.0", "16 ████ 8.0"]
