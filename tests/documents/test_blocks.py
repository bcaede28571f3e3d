"""Every example runs in one of the tests beside this one, or says why it cannot; those are counted."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from tests.documents.pages import PAGES, Block, blocks, every_block, parameters

NOT_RUN = {
    "docs/clients.md": 6,
    "docs/embeddings.md": 3,
    "docs/http.md": 1,
    "docs/installing.md": 4,
    "docs/machines.md": 2,
    "docs/observing.md": 1,
    "docs/transcription.md": 2,
    "docs/vision.md": 1,
}
"""Blocks of each page with the mark `<!-- not run: … -->`. Unmark one that can run here instead of counting it."""

FREE = {"text", "markdown"}
"""Languages of blocks that are shown and do nothing."""


def test_every_block_runs_or_says_why_it_cannot() -> None:
    runnable = {"sh", "python", "js", "yaml", "json", *FREE}
    assert [block.place for block in every_block() if block.language not in runnable and block.not_run is None] == []
    assert Counter(block.place.partition(":")[0] for block in every_block() if block.not_run) == NOT_RUN


def test_no_mark_stands_where_no_block_follows() -> None:
    marks = [len(re.findall(r"^<!-- not run:", page.text, re.MULTILINE)) for page in PAGES]
    assert marks == [sum(block.not_run is not None for block in page.blocks) for page in PAGES]


@pytest.mark.parametrize("block", parameters(blocks("json")))
def test_each_example_in_json_is_json(block: Block) -> None:
    json.loads(block.text)
