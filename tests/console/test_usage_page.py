"""The page of usage: charts and sums of hours and days, on a phone and on a desk."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.server import serving

MANIFEST = "server: {capture: {}}\nchat: {bird: {backend: echo}}\nembedding: {vectors: {backend: echo}}\n"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_what_was_used_is_shown_by_hours_and_by_days(page: Page, tmp_path: Path, width: int, scheme: str) -> None:
    with serving(tmp_path, MANIFEST, env={"XDG_STATE_HOME": str(tmp_path)}) as server:
        said = {"role": "user", "content": "one two three"}
        for _ in range(2):
            server.request("POST", "/v1/chat/completions", {"model": "bird", "messages": [said]})
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(server.url)
        page.get_by_role("link", name="Usage").click()
        expect(page.get_by_role("link", name="Usage")).to_be_in_viewport(ratio=1)
        for span in ("24 hours", "90 days", "7 days"):
            page.get_by_role("button", name=span).click()
            expect(page.get_by_role("region", name="Tokens generated").locator(".figure-value")).to_contain_text("6")
            expect(page.get_by_role("region", name="Tokens generated").locator("rect")).to_have_count(1)
        expect(page.get_by_role("region", name="Models").get_by_role("row", name="bird")).to_contain_text("2")
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        found = Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()
        page.close()
