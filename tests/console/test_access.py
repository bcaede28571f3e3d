"""The console with API keys: it asks for one, keeps it to itself, and shows what the key opens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.server import Server, serving

ADMIN, GUEST = "admin-key-0123456789", "guest-key-0123456789"
MANIFEST = """\
server:
  api_keys:
    operator: {env: OPERATOR_KEY, admin: true}
    guest: {env: GUEST_KEY, models: [bird]}
chat: {bird: {backend: echo}, hidden: {backend: echo}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = {"OPERATOR_KEY": ADMIN, "GUEST_KEY": GUEST}
    with serving(tmp_path_factory.mktemp("keys"), MANIFEST, env=keys) as server:
        yield server


@pytest.fixture
def asked(page: Page, server: Server, refusals: list[str]) -> Locator:
    """The dialog that a new page shows."""
    page.goto(server.url)
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    return dialog


def give(dialog: Locator, key: str) -> None:
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_label("Key").press("Enter")


def test_the_key_is_asked_for_and_opens_everything(asked: Locator, page: Page) -> None:
    expect(asked.get_by_label("Key")).to_be_focused()
    give(asked, ADMIN)
    expect(asked).to_have_count(0)
    expect(page.get_by_role("article", name="hidden")).to_be_visible()
    expect(page.get_by_role("button", name="Load bird")).to_be_visible()


def test_a_wrong_key_is_told_and_asked_for_again(asked: Locator, page: Page) -> None:
    give(asked, "not-the-key-0123456789")
    expect(asked.get_by_role("alert")).to_contain_text("was not accepted")
    give(asked, ADMIN)
    expect(page.get_by_role("article", name="bird")).to_be_visible()


def test_a_key_that_no_header_can_hold_is_told_too(asked: Locator, page: Page) -> None:
    give(asked, "kéy with ✓ signs")
    expect(asked.get_by_role("alert")).to_contain_text("was not accepted")


def test_a_late_refusal_of_the_key_before_asks_for_none(asked: Locator, page: Page) -> None:
    told = page.evaluate(
        """async () => {
          const { createApi } = await import("/console/api.js");
          const refusals = [];
          const api = createApi({ onRefused: (error) => refusals.push(error.message) });
          let answer;
          window.fetch = () => new Promise((resolve) => { answer = resolve; });
          const refused = () => new Response('{"error": {"message": "no"}}', { status: 401 });
          const before = api.get("/x").catch(() => {});
          api.useKey("another");
          answer(refused());
          await before;
          const told = [refusals.length];
          const after = api.get("/x").catch(() => {});
          answer(refused());
          await after;
          return [...told, refusals.length];
        }"""
    )
    assert told == [0, 1]


def test_the_api_page_is_there_with_the_second_key_too(page: Page, server: Server, refusals: list[str]) -> None:
    page.goto(f"{server.url}/#api")
    dialog = page.get_by_role("dialog", name="API key")
    give(dialog, "not-the-key-0123456789")
    expect(dialog.get_by_role("alert")).to_contain_text("was not accepted")
    give(dialog, ADMIN)
    expect(page.locator(".endpoint").first).to_be_visible()


def test_a_key_without_the_admin_right_sees_its_models_and_no_buttons(asked: Locator, page: Page) -> None:
    give(asked, GUEST)
    expect(page.get_by_role("article", name="bird")).to_be_visible()
    expect(page.get_by_role("article", name="hidden")).to_have_count(0)
    expect(page.get_by_text("Limited view")).to_be_visible()
    expect(page.get_by_role("button", name="Load")).to_have_count(0)
    expect(page.get_by_role("region", name="Manifest")).to_have_count(0)
    expect(page.get_by_role("link", name="Events")).to_have_count(0)
    page.evaluate("location.hash = '#events'")
    expect(page.get_by_text("The log is hidden")).to_be_visible()


def test_the_key_is_nowhere_but_in_memory(asked: Locator, page: Page) -> None:
    give(asked, ADMIN)
    expect(page.get_by_role("article", name="bird")).to_be_visible()
    page.get_by_role("button", name="Theme").click()
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert "theme" in kept
    assert ADMIN not in kept
    assert page.context.storage_state()["cookies"] == []
    assert page.evaluate("indexedDB.databases()") == []
    assert ADMIN not in page.content()
    page.reload()
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()


def test_the_page_and_its_files_are_open_and_hold_no_secret(server: Server) -> None:
    page, script = (server.request("GET", path) for path in ("/", "/console/app.js"))
    assert (page.status, script.status) == (200, 200)
    assert "bird" not in page.body.decode() + script.body.decode()
