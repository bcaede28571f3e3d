"""Pictures in the console's chat: chosen, pasted and dropped, and sent through each API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from localapi.audio.encoder import encoded
from localapi.audio.formats import WAV
from tests.console.playground import choose, column, ended, is_accessible, last_answer, message_field, scroll_width
from tests.images.picture_files import png
from tests.server import Server, serving

ENTRIES = {"parrot": {"backend": "echo"}, "eye": {"backend": "echo", "media": ["image", "audio"]}}
SOUND = {"name": "word.wav", "mimeType": "audio/wav", "buffer": encoded(bytes(320), WAV, 16_000)}
PICTURE = {"name": "red.png", "mimeType": "image/png", "buffer": png(30, 20)}
TRANSFER = """([type, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "some.png", { type: "image/png" }));
  const field = document.getElementById("composer-text");
  field.dispatchEvent(type === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("pictures"), json.dumps({"chat": ENTRIES})) as server:
        yield server


@pytest.fixture
def chat(page: Page, server: Server) -> Page:
    page.goto(f"{server.url}/#chat/eye")
    expect(column(page, "eye")).to_be_visible()
    return page


def add(page: Page, *files: Any) -> Locator:
    """Choose files, and give the thumbnails."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add images").click()
    chooser.value.set_files(list(files))
    return page.locator(".composer .thumbnails img")


def said(page: Page, text: str) -> str:
    """Send what there is, and give the answer."""
    message_field(page).fill(text)
    message_field(page).press("Enter")
    return ended(last_answer(page, "eye")).locator(".markdown").inner_text()


@pytest.mark.parametrize("dialect", ["", "responses", "messages", "ollama"])
def test_a_picture_goes_through_every_api_and_is_shown_with_what_was_said(chat: Page, dialect: str) -> None:
    chat.get_by_role("button", name="Parameters").click()
    chat.locator("#set-dialect").select_option(dialect)
    expect(add(chat, PICTURE)).to_have_count(1)
    assert "[image 1: png, 30x20" in said(chat, "See")
    expect(column(chat, "eye").locator(".turn.user .thumbnails img")).to_have_attribute("alt", "red.png")
    expect(chat.locator(".composer .thumbnails")).to_have_count(0)


@pytest.mark.parametrize("dialect", ["", "responses"])
def test_a_recording_goes_with_pictures_where_the_api_takes_it(chat: Page, dialect: str) -> None:
    chat.get_by_role("button", name="Parameters").click()
    chat.locator("#set-dialect").select_option("ollama")
    expect(add(chat, SOUND, PICTURE)).to_have_count(1)
    expect(chat.locator(".composer .recording")).to_have_text("word.wav")
    message_field(chat).fill("Hear")
    message_field(chat).press("Enter")
    expect(chat.locator(".composer-problem")).to_contain_text("recordings")
    chat.locator("#set-dialect").select_option(dialect)
    answer = said(chat, "Hear")
    assert "[audio 1: wav, 364 bytes]" in answer
    assert "[image 1: png, 30x20" in answer


def test_pictures_are_pasted_dropped_removed_and_sent_without_a_word(chat: Page) -> None:
    for kind in ("paste", "drop"):
        chat.evaluate(TRANSFER, [kind, base64.b64encode(png(9, 8)).decode()])
    shown = chat.locator(".composer .thumbnails img")
    expect(shown).to_have_count(2)
    chat.get_by_role("button", name="Remove some.png").first.click()
    expect(shown).to_have_count(1)
    assert said(chat, "") == "[image 1: png, 9x8]"


def test_pictures_that_are_dropped_while_another_is_read_are_all_kept(chat: Page) -> None:
    data = base64.b64encode(png(9, 8)).decode()
    chat.evaluate(f"() => [1, 2, 3].forEach(() => ({TRANSFER})(['drop', '{data}']))")
    expect(chat.locator(".composer .thumbnails img")).to_have_count(3)


def test_a_large_picture_is_made_smaller_before_it_is_sent(chat: Page) -> None:
    expect(add(chat, {**PICTURE, "buffer": png(4096, 1024)})).to_have_count(1)
    assert "[image 1: jpeg, 2048x512" in said(chat, "See")


def test_what_is_no_picture_is_refused_and_a_model_that_does_not_see_says_so(chat: Page) -> None:
    add(chat, {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    expect(chat.locator(".composer-problem")).to_contain_text("notes.txt")
    expect(add(chat, PICTURE)).to_have_count(1)
    choose(chat, "parrot", "eye")
    expect(chat.locator(".composer-problem")).to_contain_text("parrot does not accept images")
    message_field(chat).fill("See")
    expect(chat.locator(".composer").get_by_role("button", name="Send")).to_be_disabled()
    choose(chat, "eye")
    expect(chat.locator(".composer-problem")).to_have_count(0)
    assert "[image 1: png, 30x20]" in said(chat, "See")


def test_an_edited_message_keeps_its_pictures(chat: Page) -> None:
    add(chat, PICTURE)
    said(chat, "See")
    chat.get_by_role("button", name="Edit").click()
    chat.get_by_label("Edit the message").fill("Look")
    chat.get_by_label("Edit the message").press("Enter")
    expect(ended(last_answer(chat, "eye")).locator(".markdown")).to_contain_text("Look")
    expect(last_answer(chat, "eye").locator(".markdown")).to_contain_text("[image 1: png, 30x20]")


@pytest.mark.parametrize("width", [1440, 375])
def test_with_pictures_the_page_is_accessible_and_fits(chat: Page, width: int) -> None:
    chat.set_viewport_size({"width": width, "height": 800})
    expect(add(chat, PICTURE, PICTURE, PICTURE)).to_have_count(3)
    said(chat, "See")
    add(chat, PICTURE)
    is_accessible(chat)
    assert scroll_width(chat) <= width
