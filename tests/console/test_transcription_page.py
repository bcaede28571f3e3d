"""The page that writes down what is said, in a real browser: files and the microphone, text as it comes, subtitles."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import pytest
from playwright.sync_api import Download, Page, expect

from localapi.audio.encoder import encoded
from localapi.audio.formats import FORMATS
from tests.console.half_reply import HalfReply
from tests.console.playground import copied, is_accessible, refusing, scroll_width
from tests.server import Server, serving

MANIFEST = """
transcription:
  ears: {backend: echo}
  small: {backend: echo, max_file_mb: 1}
"""
RATE = 16_000
SECONDS = 24
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
TRANSCRIPTIONS = "**/v1/audio/transcriptions"
NO_MICROPHONE = "Object.defineProperty(Navigator.prototype, 'mediaDevices', {get: () => undefined});"
NOT_ALLOWED = (
    "MediaDevices.prototype.getUserMedia = async () => { throw new DOMException('Denied', 'NotAllowedError'); };"
)
INSECURE = "Object.defineProperty(window, 'isSecureContext', {value: false});"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("ears"), MANIFEST) as server:
        yield server


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "it's a talk.wav"
    path.write_bytes(encoded(bytes(2 * RATE * SECONDS), FORMATS["wav"], RATE))
    return path


@pytest.fixture
def ears(page: Page, server: Server) -> Page:
    page.goto(f"{server.url}/#transcription/ears")
    expect(page.get_by_label("Model", exact=True)).to_have_value("ears")
    return page


def choose(page: Page, path: Path) -> None:
    page.get_by_label("Choose a file").set_input_files(path)
    expect(page.locator(".transcription-chosen")).to_contain_text(path.name)


def write(page: Page) -> None:
    """Have the chosen file written down, until its transcript is complete."""
    page.get_by_role("button", name="Transcribe", exact=True).click()
    is_complete(page)


def is_complete(page: Page) -> None:
    expect(page.get_by_role("link", name="Save as Text")).to_be_visible()
    expect(page.get_by_role("region", name="Transcript", exact=True)).to_have_attribute("aria-busy", "false")


def saved(page: Page, label: str) -> Download:
    with page.expect_download() as caught:
        page.get_by_role("link", name=f"Save as {label}").click()
    return caught.value


def of_server(server: Server, path: Path, response_format: str) -> str:
    """The transcript as the server writes it."""
    with server.client() as client, path.open("rb") as file:
        return str(client.audio.transcriptions.create(model="ears", file=file, response_format=response_format))  # type: ignore[call-overload]


def test_a_file_becomes_text_with_times_and_subtitles_like_those_of_the_server(
    ears: Page, server: Server, talk: Path
) -> None:
    expect(ears.get_by_role("button", name="Transcribe", exact=True)).to_be_disabled()
    choose(ears, talk)
    write(ears)
    expect(ears.locator(".transcription-segments li")).to_have_count(3)
    expect(ears.get_by_text("24 s of audio")).to_be_visible()
    for label, ending, response_format in (("Text", "txt", "text"), ("SubRip", "srt", "srt"), ("WebVTT", "vtt", "vtt")):
        file = saved(ears, label)
        assert file.suggested_filename == f"it's a talk.{ending}"
        assert file.path().read_text("utf-8").strip() == of_server(server, talk, response_format).strip()
    ears.get_by_role("button", name="Play from 0:20").click()
    ears.wait_for_function("() => document.querySelector('audio').currentTime >= 20")


@pytest.mark.long
def test_copied_requests_give_the_same_text(ears: Page, server: Server, talk: Path) -> None:
    choose(ears, talk)
    ears.get_by_label("Names and words to expect").fill("@home, <Anna>; 'Bob'")
    write(ears)
    command = copied(ears.get_by_role("button", name="Copy the request as curl"))
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=talk.parent)
    text = of_server(server, talk, "text").strip()
    assert text in told.stdout
    script = copied(ears.get_by_role("button", name="Copy the request as Python"))
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=talk.parent)
    assert told.stdout.strip() == text
    assert copied(ears.get_by_role("button", name="Copy the text")) == text


def test_the_form_is_sent_as_it_is_filled_in(ears: Page, talk: Path) -> None:
    choose(ears, talk)
    ears.get_by_label("Spoken language").fill("de")
    ears.get_by_label("With timestamps, for subtitles").uncheck()
    ears.get_by_label("Translate to English").check()
    with ears.expect_request("**/v1/audio/translations"):
        write(ears)
    command = copied(ears.get_by_role("button", name="Copy the request as curl"))
    assert {"response_format=json", "language=de", "model=ears"} <= set(command.split())
    expect(ears.get_by_role("link", name="Save as SubRip")).to_have_count(0)


def test_a_recording_is_transcribed_when_it_ends_unless_escape_ended_it(ears: Page) -> None:
    ears.get_by_role("button", name="Record").click()
    expect(ears.get_by_text("Recording: ")).to_be_visible()
    ears.keyboard.press("Escape")
    expect(ears.get_by_role("button", name="Transcribe", exact=True)).to_be_visible()
    expect(ears.get_by_text("Nothing has been transcribed yet.")).to_be_visible()
    ears.get_by_role("button", name="Record").click()
    expect(ears.get_by_text("Recording: 1 s")).to_be_visible()
    ears.get_by_role("button", name="Stop and transcribe").click()
    is_complete(ears)
    expect(ears.locator(".transcription-chosen")).to_contain_text("recording.")
    expect(ears.locator(".transcription-segments li")).to_have_count(1)
    assert ears.evaluate("document.querySelector('audio').src").startswith("blob:")


def test_a_microphone_that_is_not_allowed_is_told(page: Page, server: Server) -> None:
    page.add_init_script(NOT_ALLOWED)
    page.goto(f"{server.url}/#transcription/ears")
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("alert")).to_contain_text("did not allow the microphone")
    expect(page.get_by_role("button", name="Record")).to_be_enabled()


def test_a_page_of_another_machine_without_https_says_why_it_has_no_microphone(page: Page, server: Server) -> None:
    page.add_init_script(NO_MICROPHONE + INSECURE)
    page.goto(f"{server.url}/#transcription/ears")
    expect(page.get_by_role("button", name="Record")).to_be_disabled()
    expect(page.get_by_text(f"http://127.0.0.1:{server.port}, or choose a file")).to_be_visible()


def test_a_file_can_be_dropped_anywhere(ears: Page, talk: Path) -> None:
    dropped = ears.evaluate_handle(
        "bytes => { const given = new DataTransfer();"
        " given.items.add(new File([new Uint8Array(bytes)], 'dropped.wav')); return given; }",
        list(talk.read_bytes()[: 44 + 2 * RATE]),
    )
    ears.dispatch_event("h1:visible", "drop", {"dataTransfer": dropped})
    expect(ears.locator(".transcription-chosen")).to_contain_text("dropped.wav")
    write(ears)


def test_a_file_that_is_too_large_for_the_model_is_told_before_it_is_sent(ears: Page, tmp_path: Path) -> None:
    (tmp_path / "long.wav").write_bytes(bytes(2**20 + 1))
    choose(ears, tmp_path / "long.wav")
    expect(ears.get_by_role("button", name="Transcribe", exact=True)).to_be_enabled()
    ears.get_by_label("Model", exact=True).select_option("small")
    expect(ears.get_by_role("alert")).to_contain_text("small accepts at most 1.0 MB")
    expect(ears.get_by_role("button", name="Transcribe", exact=True)).to_be_disabled()


def test_an_error_is_shown_as_the_server_says_it(ears: Page, tmp_path: Path, refusals: list[str]) -> None:
    (tmp_path / "letter.txt").write_text("Dear Anna,")
    choose(ears, tmp_path / "letter.txt")
    expect(ears.get_by_text("This browser cannot play the file.")).to_be_visible()
    ears.get_by_role("button", name="Transcribe", exact=True).click()
    expect(ears.locator(".notice")).to_contain_text("400 · file")
    refusing(ears, TRANSCRIPTIONS, 503, "No ears today.")
    ears.get_by_role("button", name="Transcribe", exact=True).click()
    expect(ears.locator(".notice")).to_contain_text("No ears today.")


SEGMENT: Final = {"type": "transcript.text.delta", "delta": "Good morning.", "start": 1.5, "end": 3.25}
HEARD: Final = {"progress": {"state": "sound", "model": "ears", "done": 3, "total": 60}}


def test_text_is_shown_while_it_comes_and_what_came_is_kept_after_a_stop(ears: Page, talk: Path) -> None:
    first = f": {json.dumps(HEARD)}\n\ndata: {json.dumps(SEGMENT)}\n\n"
    with HalfReply(first.encode(), content_type="text/event-stream").instead_of(TRANSCRIPTIONS, ears):
        choose(ears, talk)
        expect(ears.get_by_role("button", name="Transcribe", exact=True)).to_be_enabled()
        ears.keyboard.press("Control+Enter")
        expect(ears.locator(".transcription-segments li")).to_contain_text("Good morning.")
        expect(ears.get_by_text("Transcribed 3 of 60 s")).to_be_visible()
        ears.keyboard.press("Escape")
        expect(ears.get_by_text("stopped by you")).to_be_visible()
        assert "00:00:01,500 --> 00:00:03,250\nGood morning." in saved(ears, "SubRip").path().read_text("utf-8")


def test_it_is_accessible_and_fits_a_phone_and_a_desk(ears: Page, talk: Path) -> None:
    choose(ears, talk)
    write(ears)
    for scheme in SCHEMES:
        ears.emulate_media(color_scheme=scheme)
        is_accessible(ears)
    for width in (390, 1440):
        ears.set_viewport_size({"width": width, "height": 844})
        assert scroll_width(ears) == width
