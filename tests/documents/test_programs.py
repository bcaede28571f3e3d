"""Examples in Python and for Node run, and print what their comments say."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.documents.conftest import PYTHON_PACKAGES
from tests.documents.pages import Block, at, blocks, page, parameters
from tests.server import Server


def promised(text: str, show: str) -> list[str]:
    """Return the output that comments behind lines promise; each call must be on one line."""
    assert not re.search(r"^ *\).*  ?(#|//) ", text, re.MULTILINE), (
        "a call over several lines promises what is not checked"
    )
    return re.findall(rf"^ *{show}\(.*\);?  ?(?:#|//) (.+)$", text, re.MULTILINE)


RUNNER = """
import contextlib, io, json, sys, traceback
ended = []
for text in json.load(sys.stdin):
    printed, wrong = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            exec(compile(text, "example", "exec"), {"__name__": "__main__"})
        except BaseException:
            wrong = traceback.format_exc()
    ended.append([printed.getvalue(), wrong])
json.dump(ended, sys.stdout)
"""
"""Runs examples one after the other: most of the time of each would be that of importing the client."""


class Ended(NamedTuple):
    """End of an example."""

    printed: str
    wrong: str
    """The traceback, where it did not go well."""


@pytest.fixture(scope="module")
def ended(
    server: Server, embedding_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Block], Ended]:
    """Gives what came of an example in Python; all that need the same packages are run together."""
    kinds = {block.text: tuple(needs(block.text)) for block in blocks("python")}

    def addressed(text: str) -> str:
        return at(embedding_server if "local-embedding" in text else server, text)

    folder, found = tmp_path_factory.mktemp("examples"), dict[str, Ended]()

    def of(block: Block) -> Ended:
        if block.text not in found:
            texts = [text for text, kind in kinds.items() if kind == kinds[block.text]]
            ran = subprocess.run(
                [*interpreter(kinds[block.text]), "-c", RUNNER], input=json.dumps(list(map(addressed, texts))),
                cwd=folder, capture_output=True, text=True, timeout=240, check=False,
            )  # fmt: skip
            assert (ran.returncode, ran.stderr) == (0, "")
            found.update(zip(texts, (Ended(*each) for each in json.loads(ran.stdout)), strict=True))
        return found[block.text]

    return of


@pytest.mark.parametrize("block", parameters(blocks("python")))
def test_each_python_example_runs_and_prints_what_it_says(block: Block, ended: Callable[[Block], Ended]) -> None:
    printed, wrong = ended(block)
    says = promised(block.text, "print")
    assert wrong == ""
    assert says
    assert printed.splitlines()[: len(says)] == says


def needs(text: str) -> list[str]:
    """Return the example's imports beyond those of tests."""
    imported = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    return [PYTHON_PACKAGES[name] for name in sorted(imported & set(PYTHON_PACKAGES))]


def interpreter(packages: tuple[str, ...]) -> list[str]:
    """This one, with warnings as errors; where an example needs more, one that uv makes for it.

    A client that lives until the program ends, as every example's does, leaves its connection open: no error.
    """
    if not packages:
        return [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning"]
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    command = ["uv", "run", "-q", "--no-project", "--python", sys.executable, "--with", ",".join(packages), "python"]
    made = subprocess.run([*command, "-c", ""], capture_output=True, text=True, timeout=180, check=False)
    if made.returncode != 0:
        pytest.skip(f"uv could not install {', '.join(packages)}: {made.stderr[-300:]}")
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


def test_the_streamed_example_prints_the_same_answer(ended: Callable[[Block], Ended]) -> None:
    (block,) = [
        block for block in page("tutorial.md").blocks if block.language == "python" and "stream=True" in block.text
    ]
    whole, streamed = ended(block).printed.splitlines()
    assert whole == streamed
