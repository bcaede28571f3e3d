"""A real browser for the console. Whatever it complains of while a test looks at a page fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Response,
    expect,
    sync_playwright,
)

NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
ARGUMENTS = [
    *("--headless=new", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-smooth-scrolling"),
    # A microphone that beeps, which every page may use.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
NO_BROWSER = (
    "there is no Chromium: install one with `uv run playwright install chromium`, or Debian's with "
    "`apt-get install chromium-headless-shell`"
)
PATIENCE_MS = 60_000
"""For a machine that is busy with other things; nothing is measured against it."""

expect.set_options(timeout=PATIENCE_MS)


def found(playwright: Playwright) -> str | None:
    """The browser to use: Playwright's own, or one of the system."""
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each file of tests: Playwright's event loop would be in the way of other tests that have their own."""
    with sync_playwright() as playwright:
        path = found(playwright)
        if path is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(NO_BROWSER)
        arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        with playwright.chromium.launch(executable_path=path, args=arguments) as browser:
            yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """An empty profile. Without motion: in the middle of a transition, colours have contrasts that no page has."""
    with browser.new_context(
        viewport={"width": 1440, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
        reduced_motion="reduce",
    ) as context:
        context.set_default_timeout(PATIENCE_MS)
        yield context


@dataclass
class Heard:
    """Messages of the browser about a page."""

    complaints: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    may_be_refused: bool = False


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def refusals(heard: Heard) -> list[str]:
    """Messages of the browser about failed requests. Only a test that asks for this may have any."""
    heard.may_be_refused = True
    return heard.refusals


@pytest.fixture
def complaints(heard: Heard) -> list[str]:
    """Errors on the page's console, also of its Content-Security-Policy. A test that wants one takes it out again."""
    return heard.complaints


@pytest.fixture
def page(context: BrowserContext, heard: Heard) -> Iterator[Page]:
    """An empty page, of which the browser may not complain."""

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            refused = message.text.startswith("Failed to load resource: ")
            (heard.refusals if refused else heard.complaints).append(message.text)

    def on_response(reply: Response) -> None:
        if reply.status >= 400 and ("/console/" in reply.url or reply.request.is_navigation_request()):
            heard.complaints.append(f"{reply.status} for {reply.url}")

    page = context.new_page()
    page.on("console", on_console)
    page.on("pageerror", lambda error: heard.complaints.append(str(error)))
    page.on("response", on_response)
    yield page
    assert heard.complaints == []
    assert heard.may_be_refused or heard.refusals == []
