"""All pages: they fit a phone and a desk, can be used by keyboard, and pass axe's rules in light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.server import Server, save, serving

LAST = {
    "models": "tr.marked",
    "chat": ".column .badge:text-is('ready')",
    "speech": ".hint:text-is('1 voice')",
    "events": ".log-line.bad",
    "api": ".endpoint",
}
"""Pages, and what is on each when it is complete. Transcription, ranking and the manifest have their own tests."""
PAGES = tuple(LAST)
LONG = "a-model-with-a-name-that-is-as-long-as-names-of-models-can-be-in-real-life-8bit"
MANIFEST = f"""\
server: {{memory_budget: 4GB}}
chat:
  bird: {{backend: echo, description: Says what it hears., pin: true}}
  {LONG}: {{backend: echo, aliases: [{LONG}-alias, another]}}
speech:
  beep: {{backend: echo, voices: {{alloy: alloy}}}}
"""
BROKEN = MANIFEST + f"  worse: {{backend: nothing, description: {'a long line ' * 20}}}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frame")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One on which something has happened, and whose manifest is broken now."""
    with serving(folder, MANIFEST) as server:
        server.request("POST", "/admin/models/beep/load")
        save(folder / "models.yaml", BROKEN)
        server.wait_for("still serving")
        yield server


def show(page: Page, server: Server, name: str) -> None:
    """A page with all that is on it when the server has told what it knows."""
    page.goto(f"{server.url}/#{name}")
    expect(page.get_by_role("banner")).to_contain_text("Live")
    expect(page.locator("main section:not([hidden])").locator(LAST[name]).first).to_be_visible()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_no_wider_than_the_screen(page: Page, server: Server, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    show(page, server, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_passes_the_rules_of_accessibility(page: Page, server: Server, name: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    show(page, server, name)
    results = Axe().run(page)
    found = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in results.response["violations"]]
    assert found == [], json.dumps(found, indent=1)


def test_the_question_for_a_key_passes_them_too(page: Page, tmp_path: Path, refusals: list[str]) -> None:
    keys = "server: {api_keys: {me: {env: MY_KEY}}}\nchat: {bird: {backend: echo}}"
    with serving(tmp_path, keys, env={"MY_KEY": "k" * 20}) as server:
        page.goto(server.url)
        expect(page.get_by_role("dialog")).to_be_visible()
        assert Axe().run(page).response["violations"] == []
        page.close()


def test_everything_on_the_models_page_is_reached_by_keyboard(page: Page, server: Server) -> None:
    show(page, server, "models")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText")
        if name in reached or page.evaluate("document.activeElement === document.body"):
            break
        reached.append(name)
    words = "|".join(reached)
    for name in ("localapi", "Models", "Chat", "Speech", "Events", "API", "Theme", "Reload", "Unload bird", "Load"):
        assert name in words, reached


def test_the_skip_link_leads_past_the_navigation(page: Page, server: Server) -> None:
    show(page, server, "models")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Copy the base_url")).to_be_focused()


def test_a_page_keeps_its_state_while_another_is_shown(page: Page, server: Server) -> None:
    show(page, server, "events")
    page.get_by_label("Words").fill("loaded")
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("heading", name="Models", exact=True)).to_be_visible()
    expect(page.get_by_label("Words")).to_be_hidden()
    page.go_back()
    expect(page.get_by_label("Words")).to_have_value("loaded")
    expect(page).to_have_title("Events · localapi")


def test_the_theme_can_be_chosen_and_is_remembered(page: Page, server: Server) -> None:
    page.emulate_media(color_scheme="light")
    show(page, server, "models")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(ground) == dark


def test_a_script_that_is_not_ours_does_not_run(
    page: Page, server: Server, complaints: list[str], refusals: list[str]
) -> None:
    show(page, server, "models")
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        page.evaluate(
            "() => { const image = document.createElement('img'); image.setAttribute('onerror', 'window.ran = true');"
            " image.src = 'data:none'; document.body.append(image);"
            " return new Promise(done => document.addEventListener('securitypolicyviolation', done, {once: true})); }"
        )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in complaint for complaint in complaints)
    complaints.clear()


def test_no_style_or_frame_from_elsewhere(server: Server) -> None:
    headers = server.request("GET", "/").headers
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["referrer-policy"], headers["x-content-type-options"]) == ("no-referrer", "nosniff")
