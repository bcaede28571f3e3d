"""Actions on the console's playgrounds, as a user would do them."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.server import Server

COMPLETIONS = "**/v1/chat/completions"
Delta = Mapping[str, Any]


def choose(page: Page, *models: str) -> None:
    """Talk to these models and no others."""
    page.locator(".model-menu > summary").click()
    for box in menu_items(page):
        box.get_by_role("checkbox").set_checked(box.locator(".menu-name").inner_text() in models)
    page.keyboard.press("Escape")


def menu_items(page: Page) -> list[Locator]:
    """The models in the open menu. They come after the page itself, all at once."""
    expect(page.locator(".menu-item").first).to_be_visible()
    return page.locator(".menu-item").all()


def message_field(page: Page) -> Locator:
    return page.get_by_label("Message", exact=True)


def send(page: Page, text: str) -> None:
    """Send a text, once all models have answered what was said before."""
    expect(page.locator(".composer").get_by_role("button", name="Send")).to_be_visible()
    message_field(page).fill(text)
    message_field(page).press("Enter")


def column(page: Page, model: str) -> Locator:
    return page.get_by_role("region", name=f"Conversation with {model}", exact=True)


def last_answer(page: Page, model: str) -> Locator:
    return column(page, model).locator(".turn.answer").last


def ask(page: Page, model: str, text: str) -> Locator:
    """Send a text to the models on the page, and give this one's answer when it is complete."""
    before = column(page, model).locator(".turn.answer").count()
    send(page, text)
    expect(column(page, model).locator(".turn.answer")).to_have_count(before + 1)
    return ended(last_answer(page, model))


def ended(answer: Locator) -> Locator:
    """The answer, once nothing more comes."""
    expect(answer).to_have_attribute("aria-busy", "false", timeout=60_000)
    return answer


def requested(page: Page, text: str) -> dict[str, Any]:
    """Send a text, and give the body of the request that it makes."""
    with page.expect_request(COMPLETIONS) as caught:
        send(page, text)
    return body_of(caught.value)


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.post_data or "null")
    return body


def copied(button: Locator) -> str:
    """Return the text that a button copies, waiting for the browser."""
    page = button.page
    page.evaluate("navigator.clipboard.writeText('')")
    button.click()
    page.wait_for_function("() => navigator.clipboard.readText().then((text) => text !== '')")
    return str(page.evaluate("navigator.clipboard.readText()"))


def telling(page: Page, status: Mapping[str, Any]) -> None:
    """Have pages that are loaded from now on told this status, and nothing after it."""
    event = f"event: status\ndata: {json.dumps(status)}\n\n"
    page.add_init_script(
        f"""{{
          const fetched = window.fetch;
          const told = new TextEncoder().encode({json.dumps(event)});
          window.fetch = async (path, ...more) => path === "/status/events"
            ? new Response(new ReadableStream({{ start: (stream) => stream.enqueue(told) }}))
            : fetched(path, ...more);
        }}"""
    )


def answering(page: Page, deltas: Sequence[Delta], *, comments: Sequence[str] = ()) -> None:
    """Have all requests of the page answered by these deltas: what no model here can be made to say."""
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events = [*(f": {comment}" for comment in comments), *(f"data: {json.dumps(chunk)}" for chunk in chunks)]

    def fulfil(route: Route) -> None:
        body = "".join(f"{event}\n\n" for event in [*events, "data: [DONE]"])
        route.fulfill(content_type="text/event-stream", body=body)

    page.route(COMPLETIONS, fulfil)


def refusing(page: Page, url: str, status: int, message: str) -> None:
    """Have requests of the page refused with a message."""
    error = {"message": message, "type": "invalid_request_error", "param": message, "code": message}
    page.route(url, lambda route: route.fulfill(status=status, json={"error": error}))


def scroll_width(page: Page) -> int:
    """Return the width of the page. If it exceeds the window, the page scrolls sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth"))


def is_accessible(page: Page) -> None:
    """As far as axe's rules can tell."""
    violations = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in violations] == []


def until_leases(server: Server, model: str, count: int) -> None:
    """Wait until a model has so many requests at work. The server tells when that is."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", "/status/events")
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                models = json.loads(line.removeprefix(b"data: ")).get("models", [])
                if any(each["id"] == model and each["leases"] == count for each in models):
                    return
