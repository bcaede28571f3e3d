"""The page that renders /openapi.json: every endpoint, what it takes, and a request that the server answers."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.playground import copied, is_accessible, scroll_width
from tests.server import Server, serving

MANIFEST = """\
chat:
  large: {backend: mlx-lm, path: nobody/has-this}
  parrot: {backend: echo}
  demo: {backend: mlx-lm, path: demo}
speech: {tone: {backend: echo}}
embedding: {vectors: {backend: echo}}
rerank: {order: {backend: echo}}
"""
ENDLESS = "/status/events"
REFUSED = {
    r"/admin/manifest/(plan|save|undo)": {
        "403",
        "409",
    },  # the example has no digest, and saving needs a key
    r"/admin/captures/(?!clear)": {"404"},  # nothing is kept by this id
    r"/v1/responses/resp_": {"404"},  # nothing is stored by this id
    r"/api/(pull|create|push|copy|delete)\b": {"400", "403"},
    r"/v1/audio/(transcriptions|translations)": {"400"},  # the example has no recording
}
"""Examples that cannot be answered, with the statuses that they get."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("reference"), MANIFEST) as server:
        yield server


@pytest.fixture
def reference(page: Page, server: Server) -> Page:
    page.goto(f"{server.url}/#api")
    expect(endpoints(page).first).to_be_visible()
    return page


def endpoints(page: Page) -> Locator:
    return page.locator(".endpoint")


def opened(page: Page, method: str, path: str) -> Locator:
    """One endpoint, with all that is said of it."""
    name = page.locator(f".endpoint-path:text-is({json.dumps(path)})")
    found = endpoints(page).filter(has=name).filter(has=page.locator(f".method:text-is({json.dumps(method)})"))
    found.locator("> summary").click()
    return found


def part(above: Locator, name: str) -> Locator:
    """Return the tree's row of one key, and open it if possible."""
    line = (
        above.locator(".schema-line").filter(has=above.page.locator(f".schema-name:text-is({json.dumps(name)})")).first
    )
    if line.evaluate("line => line.localName === 'summary'"):
        line.click()
    return line


def test_every_operation_of_the_document_is_there(reference: Page, server: Server) -> None:
    document = server.get("/openapi.json")
    expected = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    shown = {
        (each.locator(".method").inner_text(), each.locator(".endpoint-path").inner_text())
        for each in endpoints(reference).all()
    }
    assert shown == expected


def test_a_body_is_a_tree_with_types_bounds_and_defaults(reference: Page) -> None:
    chat = opened(reference, "POST", "/v1/chat/completions")
    expect(part(chat, "temperature")).to_contain_text("number 0 to 2", use_inner_text=True)
    expect(part(chat, "temperature")).to_contain_text("the likeliest token")
    expect(part(chat, "top_p")).to_contain_text("0 to 1")
    expect(part(chat, "stream")).to_contain_text("default false")
    expect(part(chat, "model")).to_contain_text("required")
    expect(part(chat, "reasoning_effort")).to_contain_text('"none" | "minimal"')
    expect(part(chat, "messages")).to_contain_text("list of InstructionMessage or UserMessage")
    part(chat, "AssistantMessage")
    expect(part(chat, "tool_calls")).to_contain_text("list of ToolCall or CustomCall")
    part(chat, "ToolCall")
    part(chat, "function")
    expect(part(chat, "arguments")).to_contain_text("text")


def test_replies_and_parameters_are_told(reference: Page) -> None:
    voices = opened(reference, "GET", "/v1/audio/voices")
    expect(voices.get_by_text("text, in the query")).to_be_visible()
    for status in ("200", "400", "401", "404"):
        expect(voices.locator(f".status:text-is('{status}')")).to_be_visible()
    speech = opened(reference, "POST", "/v1/audio/speech")
    expect(speech.locator(".reply").first).to_contain_text("audio/mpeg")


def test_the_example_of_every_endpoint_is_answered(reference: Page, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("examples")
    for each in endpoints(reference).all():
        each.locator("> summary").click()
        expect(each.get_by_role("region", name="Example")).not_to_contain_text("MODEL")  # which are there by then
        command = copied(each.get_by_role("button", name="Copy the example"))
        assert command.startswith("curl -s")
        if ENDLESS in command:
            continue
        told = subprocess.run(
            ["bash", "-c", f"{command.rstrip()} -w '%{{stderr}}%{{http_code}}'"],
            capture_output=True, text=True, check=True, cwd=folder,
        )  # fmt: skip
        [wanted] = [status for path, status in REFUSED.items() if re.search(path, command)] or [{"200"}]
        assert told.stderr in wanted, f"{command}\n{told.stdout}"


def test_an_example_names_a_model_that_answers_soon(reference: Page) -> None:
    chat = opened(reference, "POST", "/v1/chat/completions")
    expect(chat.get_by_role("region", name="Example")).to_contain_text('"model": "demo"')


def test_endpoints_can_be_found_by_words(reference: Page) -> None:
    reference.get_by_label("Find an endpoint").fill("post audio/speech")
    expect(endpoints(reference)).to_have_count(1)
    expect(endpoints(reference)).to_contain_text("/v1/audio/speech")
    reference.get_by_label("Find an endpoint").fill("no such thing")
    expect(reference.get_by_text("No endpoint matches all of these words.")).to_be_visible()


def test_a_schema_inside_itself_ends(page: Page, server: Server) -> None:
    tree = {"$ref": "#/components/schemas/Tree"}
    document: dict[str, Any] = {
        "info": {"description": "A circle."},
        "paths": {
            "/x": {
                "post": {
                    "summary": "x",
                    "requestBody": {"content": {"application/json": {"schema": tree}}},
                    "responses": {"200": {"description": "x", "content": {"application/json": {"schema": tree}}}},
                }
            }
        },
        "components": {
            "schemas": {
                "Tree": {
                    "type": "object",
                    "properties": {"left": tree, "many": {"type": "array", "items": tree}, "name": {"type": "string"}},
                    "required": ["left", "many"],
                }
            }
        },
    }
    page.route("**/openapi.json", lambda route: route.fulfill(json=document))
    page.goto(f"{server.url}/#api")
    endpoint = opened(page, "POST", "/x")
    for name in ("left", "many"):
        expect(part(endpoint, name)).to_contain_text("as above")
    expect(endpoint.locator(".endpoint-body > .schema details")).to_have_count(0)


def test_it_needs_no_admin_right(page: Page, tmp_path_factory: pytest.TempPathFactory, refusals: list[str]) -> None:
    keys = "server: {api_keys: {me: {env: MY_KEY}}}\n"
    with serving(tmp_path_factory.mktemp("keyed"), keys + MANIFEST, env={"MY_KEY": "k" * 20}) as server:
        page.goto(f"{server.url}/#api")
        page.get_by_role("dialog").get_by_label("Key").fill("k" * 20)
        page.get_by_role("dialog").get_by_label("Key").press("Enter")
        expect(endpoints(page).first).to_be_visible()
        chat = opened(page, "POST", "/v1/chat/completions")
        expect(chat.get_by_role("region", name="Example")).to_contain_text('"Authorization: Bearer $LOCALAPI_API_KEY"')
        expect(page.get_by_text("k" * 20)).to_have_count(0)
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone_and_a_desk(reference: Page, scheme: Any) -> None:
    reference.emulate_media(color_scheme=scheme)
    chat = opened(reference, "POST", "/v1/chat/completions")
    part(chat, "messages")
    part(chat, "AssistantMessage")
    is_accessible(reference)
    for width in (390, 1440):
        reference.set_viewport_size({"width": width, "height": 844})
        assert scroll_width(reference) == width


def test_it_can_be_used_by_keyboard_alone(reference: Page) -> None:
    reference.get_by_label("Find an endpoint").focus()
    reference.keyboard.press("Tab")
    reference.keyboard.press("Enter")
    expect(reference.get_by_role("region", name="Example")).to_be_visible()
    reference.keyboard.press("Tab")
    expect(reference.get_by_role("button", name="Copy the example")).to_be_focused()
    reference.keyboard.press("Tab")
    reference.keyboard.press("Tab")
    reference.keyboard.press("Enter")
    expect(reference.locator(".schema details[open]")).to_have_count(1)
