"""The page that ranks documents, in a real browser, with models of both kinds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.console.playground import copied, is_accessible, refusing, scroll_width
from tests.server import Server, serving

MANIFEST = """
embedding: {near: {backend: echo}}
rerank: {judge: {backend: echo}}
"""
DOCUMENTS = "It will rain tomorrow.\n\n  The cat sleeps on the sofa.  \nDogs run."
BEST = "The cat sleeps on the sofa."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("vectors"), MANIFEST) as server:
        yield server


def show(page: Page, server: Server, model: str) -> None:
    page.goto(f"{server.url}/#ranking/{model}")
    expect(page.get_by_label("Model", exact=True)).to_have_value(model)
    page.get_by_label("Documents", exact=True).fill(DOCUMENTS)


@pytest.mark.parametrize(("model", "requests"), [("near", 2), ("judge", 1)])
def test_the_document_that_fits_best_is_the_first(page: Page, server: Server, model: str, requests: int) -> None:
    show(page, server, model)
    page.get_by_label("Query", exact=True).press("Control+Enter")
    found = page.locator(".ranking-best li")
    expect(found).to_have_count(3)
    expect(found.first).to_contain_text(BEST)
    copies = page.get_by_role("button", name="as curl")
    expect(copies).to_have_count(requests)
    told = subprocess.run(["bash", "-c", copied(copies.last)], capture_output=True, text=True, check=True)
    reply = json.loads(told.stdout)
    assert len(reply.get("results") or reply["data"]) == 3
    is_accessible(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert scroll_width(page) == 390


def test_an_error_is_shown_as_the_server_says_it(page: Page, server: Server, refusals: list[str]) -> None:
    show(page, server, "near")
    refusing(page, "**/v1/embeddings", 503, "No vectors today.")
    page.get_by_role("button", name="Rank").click()
    expect(page.locator(".notice")).to_contain_text("No vectors today.")
    expect(page.locator(".ranking-best")).to_have_count(0)
    page.get_by_label("Documents", exact=True).fill(" \n ")
    expect(page.get_by_role("button", name="Rank")).to_be_disabled()
