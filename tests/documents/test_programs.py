"""Examples in Python and for Node run, and print what their comments say."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.conftest import PYTHON_PACKAGES
from tests.documents.pages import README, Block, at, blocks, parameters
from tests.server import Server


def promised(text: str, show: str) -> list[str]:
    """What the comments behind lines that print say they print."""
    return re.findall(rf"^ *{show}\(.*\);?  ?(?:#|//) (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("block", parameters(blocks("python")))
def test_each_python_example_runs_and_prints_what_it_says(block: Block, server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [*interpreter(block.text), "-c", at(server, block.text)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    says = promised(block.text, "print")
    assert done.returncode == 0, done.stderr
    assert says
    assert done.stdout.splitlines()[: len(says)] == says


def interpreter(text: str) -> list[str]:
    """This one, with warnings as errors; where the example imports more, one that uv makes for it."""
    imported = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    needs = [PYTHON_PACKAGES[name] for name in sorted(imported & set(PYTHON_PACKAGES))]
    if not needs:
        return [sys.executable, "-W", "error"]
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    command = ["uv", "run", "-q", "--no-project", "--python", sys.executable, "--with", ",".join(needs), "python"]
    made = subprocess.run([*command, "-c", ""], capture_output=True, text=True, timeout=180, check=False)
    if made.returncode != 0:
        pytest.skip(f"uv could not install {', '.join(needs)}: {made.stderr[-300:]}")
    return command


@pytest.mark.parametrize("block", parameters(blocks("js")))
def test_each_example_for_node_runs_and_prints_what_it_says(block: Block, server: Server, node_folder: Path) -> None:
    script = node_folder / f"{re.sub(r'[^a-z0-9]+', '-', block.place)}.mjs"
    script.write_text(at(server, block.text))
    done = subprocess.run(["node", script], cwd=node_folder, capture_output=True, text=True, timeout=120, check=False)
    says = promised(block.text, r"console\.log")
    assert (done.returncode, done.stderr) == (0, "")
    assert says
    assert done.stdout.splitlines()[: len(says)] == says


def test_the_streamed_example_prints_the_same_answer(server: Server, tmp_path: Path) -> None:
    (text,) = [block.text for block in README.blocks if block.language == "python" and "stream=True" in block.text]
    done = subprocess.run(
        [sys.executable, "-c", at(server, text)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    whole, streamed = done.stdout.splitlines()
    assert whole == streamed
