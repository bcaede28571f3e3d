"""Amounts of bytes are told in one way, which is that of the manifest and of the page."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from localapi.backends.options import parse_memory
from localapi.system.byte_sizes import readable

FORMAT = Path(__file__).parents[2] / "localapi" / "console" / "format.js"
TOLD = {
    12: "12 B",
    2**10: "1.0 kB",
    27 * 2**10: "27 kB",
    1_468_006: "1.4 MB",
    512 * 2**20: "512 MB",
    8 * 2**30: "8.00 GB",
    25_125_558_681: "23.4 GB",
    300 * 2**30: "300 GB",
    3 * 2**39: "1.50 TB",
}


@pytest.mark.parametrize(("size", "told"), TOLD.items())
def test_a_size_is_told_in_the_largest_unit_that_it_fills(size: int, told: str) -> None:
    assert readable(size) == told


@pytest.mark.parametrize("said", ["8.00 GB", "512 MB", "1.50 TB"])
def test_what_is_told_is_what_the_manifest_would_mean_by_it(said: str) -> None:
    size = parse_memory(said)
    assert size is not None
    assert readable(size) == said


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_page_tells_them_in_the_same_way() -> None:
    lines = FORMAT.read_text("utf-8").partition("export function bytes")[2].partition("\n}\n")[0]
    script = f"function bytes{lines}\n}}\nconsole.log(JSON.stringify({json.dumps([*TOLD])}.map(bytes)))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [*TOLD.values()]
