"""Each benchmark runs to its end, on little, and prints what it measured. How quick anything was is not looked at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RATIO = re.compile(r"(\d+\.\d+) \((\d+\.\d+) to (\d+\.\d+)\)")
SHARE = re.compile(r"(\d+) of (\d+) ")


def printed(line: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *line.split()], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "ratios", "long"),
    [
        ("tests.bench.chat --model tiny --streams 2 --tokens 8 --prompt-tokens 20 --rounds 1", 2, False),
        ("tests.bench.fairness --prompt-tokens 600 --rounds 1", 5, True),
        ("tests.bench.prefix --prefix-tokens 200 --rounds 1", 3, True),
        ("tests.bench.upstream --model tiny --streams 2 --tokens 8 --rounds 1", 3, True),
        ("tests.bench.places --streams 2 --tokens 8 --rounds 1", 5, True),
        ("tests.bench.dialects --tokens 300 --rounds 1", 8, False),
        ("tests.bench.speculation --model tiny --streams 1 --tokens 20 --rounds 1", 8, True),
        ("tests.bench.vectors --texts 4 --requests 2 --clients 2 --rounds 1", 4, True),
        ("tests.bench.speech --characters 160 --together 2 --rounds 1", 12, True),
    ],
)
def test_a_benchmark_prints_ratios_of_what_was_really_answered(
    line: str, ratios: int, long: bool, pytestconfig: pytest.Config
) -> None:
    if long and not pytestconfig.getoption("--long"):
        pytest.skip("takes --long: most of it is the start of several servers")
    table = printed(line)
    found = [[float(number) for number in numbers] for numbers in RATIO.findall(table)]
    assert len(found) == ratios, table
    assert all(0 < low <= median <= high < 1000 for median, low, high in found), table
    assert all(right == asked for right, asked in SHARE.findall(table)), table
