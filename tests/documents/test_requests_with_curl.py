"""Requests with curl are answered, as the block in JSON that follows them shows."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from tests.documents.pages import PAGES, Block, at, blocks
from tests.server import Server
from tests.sound import seconds

CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def requests() -> list[Any]:
    """Each block of curl once, with the block in JSON that follows it as its reply, or None."""
    found: dict[str, Any] = {}
    for page in PAGES:
        for block, after in zip_longest(page.blocks, page.blocks[1:]):
            if block.language == "sh" and block.text.startswith("curl ") and block.not_run is None:
                reply = after if after is not None and after.language == "json" and after.not_run is None else None
                found.setdefault(block.text, pytest.param(block, reply, id=block.place))
    return list(found.values())


@CURL
@pytest.mark.parametrize(("block", "reply"), requests())
def test_each_request_with_curl_gets_the_reply_that_is_shown(
    block: Block, reply: Block | None, server: Server, tmp_path: Path
) -> None:
    strict = f'curl() {{ command curl --fail-with-body "$@"; }}\n{at(server, block.text)}'
    done = subprocess.run(["sh", "-ec", strict], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    shown = json.loads(reply.text) if reply is not None else None
    of_an_error = isinstance(shown, dict) and "error" in shown
    assert done.returncode == (22 if of_an_error else 0), done.stdout
    if shown is not None:
        assert differences(shown, json.loads(done.stdout)) == []


def differences(shown: Any, found: Any, place: str = "reply") -> list[str]:
    """Yield the places in which a reply differs from the example in keys, in types, or in the length of a list."""
    if isinstance(shown, dict) and isinstance(found, dict):
        missing = [f"{place}.{key} is missing" for key in shown if key not in found]
        both = [key for key in shown if key in found]
        return missing + [each for key in both for each in differences(shown[key], found[key], f"{place}.{key}")]
    if isinstance(shown, list) and isinstance(found, list):
        few = [f"{place} has {len(found)} items"] if len(found) < len(shown) else []
        pairs = enumerate(zip(shown, found, strict=False))
        return few + [each for i, (a, b) in pairs for each in differences(a, b, f"{place}[{i}]")]
    numbers = isinstance(shown, int | float) and isinstance(found, int | float)
    return [] if type(shown) is type(found) or numbers else [f"{place} is {found!r}"]


@CURL
def test_the_request_for_speech_writes_the_file_that_it_names(server: Server, tmp_path: Path) -> None:
    (script,) = {text for text in curls() if "morning.mp3" in text}  # the same on all pages
    subprocess.run(["sh", "-c", at(server, script)], cwd=tmp_path, timeout=120, check=True)
    assert 1 < seconds((tmp_path / "morning.mp3").read_bytes(), "mp3") < 5


@CURL
def test_the_first_request_with_curl_gets_an_answer(server: Server) -> None:
    done = subprocess.run(["sh", "-c", at(server, curls()[0])], capture_output=True, text=True, timeout=120, check=True)
    assert "What is the capital of France?" in json.loads(done.stdout)["choices"][0]["message"]["content"]


def curls() -> list[str]:
    return [block.text for block in blocks("sh") if block.text.startswith("curl ")]
