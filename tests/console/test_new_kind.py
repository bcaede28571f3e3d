"""A kind that the console has never heard of is on its pages as the server describes it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.console.playground import copied
from tests.server import Server, serving

MANIFEST = """\
chat: {bird: {backend: echo}}
sentiment: {mood: {backend: echo, labels: [fine, awful]}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("sentiment"), MANIFEST, module="tests.kinds.sentiment_kind") as server:
        yield server


def test_its_models_have_a_group_and_no_page_to_try_them_on(page: Page, server: Server) -> None:
    page.goto(server.url)
    group = page.get_by_role("region", name="Sentiment models")
    expect(group.get_by_role("article")).to_have_count(1)
    expect(group.get_by_role("link", name="Try")).to_have_count(0)
    expect(page.get_by_role("link", name="Try bird")).to_have_attribute("href", "#chat/bird")
    group.get_by_role("button", name="Load mood").click()
    expect(group.locator(".badge").first).to_have_text("ready")


def test_its_endpoint_has_a_group_and_an_example_that_is_answered(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/#api")
    judge = page.get_by_role("region", name="Sentiment").locator(".endpoint")
    judge.locator("> summary").click()
    expect(judge.get_by_role("region", name="Example")).to_contain_text('"model": "mood"')
    command = copied(judge.get_by_role("button", name="Copy the example"))
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert set(json.loads(told.stdout)) == {"label"}


def test_the_pages_of_other_kinds_do_not_offer_it(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/#chat")
    page.locator(".model-menu > summary").click()
    expect(page.get_by_role("group", name="Models to talk to").get_by_role("checkbox")).to_have_count(1)
