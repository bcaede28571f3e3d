"""The page of the latest requests: it shows one with its reply and sends it again."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.server import serving

MANIFEST = "server: {capture: {}}\nchat: {bird: {backend: echo}}\n"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_a_request_is_looked_at_and_sent_again(page: Page, tmp_path: Path, width: int, scheme: str) -> None:
    with serving(tmp_path, MANIFEST) as server:
        said = {"role": "user", "content": "good morning"}
        server.request("POST", "/v1/chat/completions", {"model": "bird", "messages": [said]})
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(server.url)
        page.get_by_role("link", name="Requests").click()
        page.get_by_role("button", name="Show req_").click()
        expect(page.get_by_role("group", name="Request", exact=True)).to_contain_text("good morning")
        page.get_by_role("button", name="Send again").click()
        expect(page.get_by_role("group", name="New reply")).to_contain_text("good morning")
        expect(page.get_by_role("button", name="Show req_")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        found = Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()
        page.close()
