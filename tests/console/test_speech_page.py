"""The speech playground in a real browser: heard while it comes, in each of the ways that a browser may need."""

from __future__ import annotations

import base64
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.half_reply import HalfReply
from tests.console.playground import copied, is_accessible, refusing, scroll_width
from tests.server import Server, serving
from tests.sound import seconds

MANIFEST = """
speech:
  tone: {backend: echo, max_input_characters: 300, voices: {alloy: low, slowly: {voice: low, speed: 0.5}}}
  long: {backend: echo}
  robot: {backend: espeak-ng, voices: {alloy: en-us}}
chat:
  parrot: {backend: echo}
"""
TEXT = "This sentence takes about three seconds to be said."
TEXT_SECONDS = len(TEXT) / 15
"""Length of the sound that echo makes of it."""
SPEECH = "**/v1/audio/speech"
RECORD = """
  window.heard = [];
  const wrap = (prototype, name, note) => {
    const original = prototype[name];
    prototype[name] = function (...given) {
      window.heard.push(note(this, ...given));
      return original.apply(this, given);
    };
  };
  if (window.SourceBuffer) wrap(SourceBuffer.prototype, 'appendBuffer', () => 'append');
  if (window.MediaSource) wrap(MediaSource.prototype, 'endOfStream', () => 'end');
  const noteStart = ({ buffer, context }, when) => [when, buffer.duration, context.currentTime];
  wrap(AudioBufferSourceNode.prototype, 'start', noteStart);
"""
"""Notes what sound the page gives to the browser, for tests to look at."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("speech"), MANIFEST) as server:
        yield server


@pytest.fixture
def speech(page: Page, server: Server) -> Page:
    page.add_init_script(RECORD)
    show(page, server)
    return page


def show(page: Page, server: Server, model: str = "tone") -> None:
    page.goto(f"{server.url}/#speech/{model}")
    expect(page.get_by_label("Model", exact=True)).to_have_value(model)
    expect(page.get_by_label("Voice", exact=True).locator("option", has_text="alloy")).to_have_count(1)
    page.get_by_label("Text", exact=True).fill(TEXT)


def speak(page: Page, format: str) -> dict[str, Any]:  # noqa: A002
    """Have the text said in this format, until all of it is there; gives the request's body."""
    page.get_by_label("Format", exact=True).select_option(format)
    with page.expect_request(SPEECH) as caught:
        page.get_by_role("button", name="Speak").click()
    expect(page.get_by_role("link", name="Download")).to_be_visible()
    body: dict[str, Any] = json.loads(caught.value.post_data or "null")
    return body


def sound(server: Server, format: str) -> bytes:  # noqa: A002
    """Return the sound of the text."""
    body = {"model": "tone", "input": TEXT, "response_format": format}
    return server.request("POST", "/v1/audio/speech", body).body


def half_of(whole: bytes) -> HalfReply:
    middle = len(whole) // 2
    return HalfReply(whole[:middle], whole[middle:])


def player(page: Page) -> Locator:
    return page.get_by_label("Player", exact=True)


def is_heard(page: Page) -> None:
    """The element plays what it has, or has played it: on a slow machine it may have come to the end."""
    page.wait_for_function(
        "() => { const { played } = document.querySelector('audio'); return played.length > 0 && played.end(0) > 0; }"
    )


def drawn_seconds(page: Page) -> float:
    """Return the length of the sound that is drawn."""
    picture = page.get_by_role("img", name="Waveform")
    expect(picture).to_have_attribute("aria-label", re.compile(r"Waveform, [\d.]+ s"))
    return float((picture.get_attribute("aria-label") or "").split()[1])


def duration(page: Page) -> float:
    page.wait_for_function("() => Number.isFinite(document.querySelector('audio').duration)")
    return float(player(page).evaluate("audio => audio.duration"))


@pytest.mark.parametrize("format", ["mp3", "aac"])
def test_what_the_browser_can_decode_is_heard_while_it_comes(speech: Page, server: Server, format: str) -> None:  # noqa: A002
    gate = half_of(sound(server, format))
    with gate.instead_of(SPEECH, speech):
        speech.get_by_label("Format", exact=True).select_option(format)
        speech.get_by_role("button", name="Speak").click()
        is_heard(speech)
        expect(speech.get_by_role("region", name="The sound")).to_have_attribute("aria-busy", "true")
        assert set(speech.evaluate("window.heard")) == {"append"}
        gate.opened.set()
        expect(speech.get_by_role("link", name="Download")).to_be_visible()
    assert speech.evaluate("window.heard").pop() == "end"
    assert duration(speech) == pytest.approx(TEXT_SECONDS, abs=0.15)


@pytest.mark.parametrize("format", ["wav", "pcm"])
def test_samples_are_heard_while_they_come(speech: Page, server: Server, format: str) -> None:  # noqa: A002
    gate = half_of(sound(server, format))
    with gate.instead_of(SPEECH, speech):
        speech.get_by_label("Format", exact=True).select_option(format)
        speech.get_by_role("button", name="Speak").click()
        speech.wait_for_function("() => window.heard.length > 0")
        expect(speech.get_by_role("region", name="The sound")).to_have_attribute("aria-busy", "true")
        gate.opened.set()
        expect(speech.get_by_role("link", name="Download")).to_be_visible()
    starts = speech.evaluate("window.heard")
    assert len(starts) > 1
    assert sum(length for _, length, _ in starts) == pytest.approx(TEXT_SECONDS, abs=0.15)
    assert duration(speech) == pytest.approx(TEXT_SECONDS, abs=0.15)
    expect(speech.get_by_role("button", name="Speak")).to_be_visible()  # at its end there is nothing to stop
    player(speech).evaluate("audio => audio.play()")
    is_heard(speech)


def test_long_samples_are_heard_without_a_gap(speech: Page) -> None:
    speech.get_by_label("Model", exact=True).select_option("long")
    speech.get_by_label("Text", exact=True).fill(f"{TEXT} " * 40)
    assert speak(speech, "wav")["stream"] is True
    starts = speech.evaluate("window.heard")
    assert len(starts) > 1
    for (begin, length, _), (after, _, now) in itertools.pairwise(starts):
        assert after == pytest.approx(begin + length, abs=1e-6) or begin + length <= now  # it came too late
    speech.get_by_role("button", name="Stop").click()  # the file is complete, and sounds for two minutes
    expect(speech.get_by_role("button", name="Speak")).to_be_visible()


@pytest.mark.parametrize("format", ["mp3", "aac"])
def test_only_what_is_set_is_sent(speech: Page, format: str) -> None:  # noqa: A002
    assert speak(speech, format) == {"model": "tone", "input": TEXT, "response_format": format}


@pytest.mark.parametrize("format", ["opus", "flac"])
def test_other_formats_are_heard_when_they_are_complete(speech: Page, format: str) -> None:  # noqa: A002
    expect(speech.get_by_text("plays as it arrives")).to_be_visible()
    body = speak(speech, format)
    expect(speech.get_by_text("plays when complete")).to_be_visible()
    assert body["stream"] is False
    is_heard(speech)
    assert duration(speech) == pytest.approx(TEXT_SECONDS, abs=0.15)
    assert speech.evaluate("window.heard") == []


def test_a_browser_without_media_source_hears_samples_and_whole_files(page: Page, server: Server) -> None:
    page.add_init_script(f"delete window.MediaSource; {RECORD}")
    show(page, server)
    expect(page.get_by_label("Format", exact=True)).to_have_value("wav")
    speak(page, "wav")
    assert len(page.evaluate("window.heard")) > 0
    page.get_by_role("button", name="Stop").click()
    assert speak(page, "mp3")["stream"] is False
    is_heard(page)
    assert duration(page) == pytest.approx(TEXT_SECONDS, abs=0.15)


def test_a_real_voice_is_heard_and_drawn(speech: Page, server: Server) -> None:
    show(speech, server, "robot")
    speak(speech, "mp3")
    is_heard(speech)
    assert duration(speech) == pytest.approx(drawn_seconds(speech), abs=0.1)
    tall = speech.evaluate(
        "[...document.querySelector('.waveform path:not(.silence)').getAttribute('d').matchAll(/v([\\d.]+)/g)]"
        ".map(([, height]) => Number(height))"
    )
    assert max(tall) > 50  # words are loud,
    assert min(tall) < 5  # and between them is silence
    facts = speech.locator(".speech-foot dd").all_inner_texts()
    assert [fact.split()[0] for fact in facts[:2]] == ["first", "total"]


def test_a_click_on_the_waveform_goes_on_from_there(speech: Page) -> None:
    speak(speech, "mp3")
    player(speech).evaluate("audio => audio.pause()")
    drawn_seconds(speech)
    box = speech.locator(".waveform").bounding_box()
    assert box is not None
    speech.locator(".waveform").click(position={"x": box["width"] / 2, "y": 20})
    assert player(speech).evaluate("audio => audio.currentTime") == pytest.approx(TEXT_SECONDS / 2, abs=0.2)


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_the_file_can_be_kept_under_the_right_name(speech: Page, tmp_path: Path, format: str) -> None:  # noqa: A002
    speak(speech, format)
    with speech.expect_download() as caught:
        speech.get_by_role("link", name="Download").click()
    assert caught.value.suggested_filename == f"tone.{format}"
    caught.value.save_as(tmp_path / "file")
    assert seconds((tmp_path / "file").read_bytes(), format) == pytest.approx(TEXT_SECONDS, abs=0.15)


def test_what_is_copied_makes_the_same_file(speech: Page, tmp_path: Path) -> None:
    speech.get_by_label("Voice", exact=True).select_option("slowly")
    body = speak(speech, "wav")
    assert body["voice"] == "slowly"
    command = copied(speech.get_by_role("button", name="Copy the request as curl"))
    subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path)
    assert seconds((tmp_path / "tone.wav").read_bytes(), "wav") == pytest.approx(2 * TEXT_SECONDS, abs=0.2)
    (tmp_path / "tone.wav").unlink()
    speech.get_by_label("Voice", exact=True).select_option("")
    assert "voice" not in speak(speech, "mp3")
    script = copied(speech.get_by_role("button", name="Copy the request as Python"))
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert seconds((tmp_path / "tone.mp3").read_bytes(), "mp3") == pytest.approx(TEXT_SECONDS, abs=0.15)


def test_speed_and_instructions_are_sent_where_they_are_set_and_taken(speech: Page, server: Server) -> None:
    speech.get_by_label("Instructions", exact=True).fill("calm")
    speech.get_by_label("Speed", exact=True).fill("2")
    body = speak(speech, "mp3")
    assert (body["speed"], body["instructions"]) == (2, "calm")
    assert duration(speech) == pytest.approx(TEXT_SECONDS / 2, abs=0.15)
    speech.get_by_role("button", name="reset to the default").click()
    speech.get_by_label("Model", exact=True).select_option("robot")
    expect(speech.get_by_label("Instructions", exact=True)).to_have_count(0)
    expect(speech.locator("optgroup")).to_have_count(2)
    assert speak(speech, "mp3").keys() == {"model", "input", "response_format"}


def test_recordings_are_sent_and_copied_requests_read_it_from_its_file(
    speech: Page, server: Server, tmp_path: Path
) -> None:
    recording = tmp_path / "it's me.wav"
    recording.write_bytes(sound(server, "wav"))
    expect(speech.get_by_label("Transcript of the recording")).to_have_count(0)
    speech.get_by_label("Voice to clone", exact=True).set_input_files(recording)
    speech.get_by_label("Speech to convert", exact=True).set_input_files(recording)
    speech.get_by_label("Transcript of the recording").fill('"Five $HOME dollars," `she` said \\ wrote.')
    body = speak(speech, "mp3")
    assert body["ref_text"] == '"Five $HOME dollars," `she` said \\ wrote.'
    assert base64.b64decode(body["ref_audio"].removeprefix("data:audio/wav;base64,")) == recording.read_bytes()
    assert body["source_audio"] == body["ref_audio"]
    command = copied(speech.get_by_role("button", name="Copy the request as curl"))
    subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path)
    assert seconds((tmp_path / "tone.mp3").read_bytes(), "mp3") == pytest.approx(TEXT_SECONDS, abs=0.15)
    (tmp_path / "tone.mp3").unlink()
    script = copied(speech.get_by_role("button", name="Copy the request as Python"))
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert seconds((tmp_path / "tone.mp3").read_bytes(), "mp3") == pytest.approx(TEXT_SECONDS, abs=0.15)
    speech.get_by_role("button", name="Remove: Voice to clone").click()
    assert speak(speech, "mp3").keys() == {"model", "input", "response_format", "source_audio"}
    speech.get_by_role("button", name="Remove: Speech to convert").click()
    assert speak(speech, "mp3").keys() == {"model", "input", "response_format"}
    speech.get_by_label("Model", exact=True).select_option("robot")
    expect(speech.get_by_label("Voice to clone").or_(speech.get_by_label("Speech to convert"))).to_have_count(0)


def test_a_recording_that_no_request_can_hold_is_told(speech: Page, tmp_path: Path) -> None:
    (tmp_path / "nothing.wav").touch()
    speech.get_by_label("Voice to clone").set_input_files(tmp_path / "nothing.wav")
    expect(speech.get_by_text("The file has 0 bytes")).to_be_visible()
    assert "ref_audio" not in speak(speech, "mp3")
    (tmp_path / "half.wav").write_bytes(bytes(7_000_000))
    speech.get_by_label("Voice to clone", exact=True).set_input_files(tmp_path / "half.wav")
    expect(speech.get_by_role("button", name="Remove: Voice to clone")).to_be_visible()
    speech.get_by_label("Speech to convert", exact=True).set_input_files(tmp_path / "half.wav")
    expect(speech.get_by_text("The file has 7,000,000 bytes; 1 to 4,9")).to_be_visible()


def test_no_voice_is_asked_for_before_it_is_known_which_there_are(speech: Page) -> None:
    held: list[Any] = []
    speech.route("**/v1/audio/voices*", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks its handlers
    speech.get_by_label("Voice", exact=True).select_option("slowly")
    speech.get_by_label("Model", exact=True).select_option("robot")
    expect(speech.get_by_text("fetching the list")).to_be_visible()
    expect(speech.get_by_label("Voice", exact=True)).to_be_disabled()
    speech.unroute("**/v1/audio/voices*")  # which lets go on what was held
    expect(speech.locator("optgroup")).to_have_count(2)
    assert "voice" not in speak(speech, "mp3")


def test_a_text_that_is_too_long_is_told_before_it_is_sent(speech: Page) -> None:
    speech.get_by_label("Text", exact=True).fill("x" * 300)
    expect(speech.get_by_role("button", name="Speak")).to_be_enabled()
    speech.get_by_label("Text", exact=True).fill("x" * 301)
    expect(speech.get_by_role("alert")).to_contain_text("301 characters; this model accepts at most 300")
    expect(speech.get_by_role("button", name="Speak")).to_be_disabled()


def test_an_error_is_shown_as_the_server_says_it_and_leaves_no_sound_of_before(
    speech: Page, refusals: list[str]
) -> None:
    speak(speech, "wav")
    expect(speech.get_by_role("link", name="Download")).to_have_count(1)
    refusing(speech, SPEECH, 503, "No voice today.")
    speech.get_by_role("button", name="Speak").click()
    expect(speech.locator(".notice")).to_contain_text("No voice today.")
    expect(speech.get_by_role("link", name="Download")).to_have_count(0)
    assert player(speech).get_attribute("src") is None


def test_sound_that_the_browser_cannot_read_is_told(speech: Page) -> None:
    speech.route(SPEECH, lambda route: route.fulfill(content_type="audio/mpeg", body="this is no sound"))
    speech.get_by_label("Format", exact=True).select_option("opus")
    speech.get_by_role("button", name="Speak").click()
    expect(speech.locator(".notice")).to_contain_text("The browser cannot play the audio")


def test_stop_ends_the_request(speech: Page) -> None:
    held: list[Any] = []
    speech.route(SPEECH, lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks its handlers
    with speech.expect_request(SPEECH):
        speech.get_by_role("button", name="Speak").click()
    expect(speech.get_by_text("Waiting for the first sound")).to_be_visible()
    with speech.expect_event("requestfailed", lambda request: request.url.endswith("/v1/audio/speech")):
        speech.get_by_role("button", name="Copy the request as curl").press("Escape")
    expect(speech.get_by_role("button", name="Speak")).to_be_visible()
    expect(speech.get_by_text("stopped by you")).to_be_visible()


def test_it_can_be_used_by_keyboard_alone(speech: Page) -> None:
    speech.get_by_label("Text", exact=True).focus()
    speech.keyboard.press("Control+a")
    speech.keyboard.type("Hello there.")
    speech.keyboard.press("Tab")
    speech.keyboard.type("robot")
    speech.keyboard.press("Control+Enter")
    expect(speech.get_by_role("link", name="Download")).to_be_visible()
    is_heard(speech)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone_and_a_desk(speech: Page, scheme: Any) -> None:
    speech.emulate_media(color_scheme=scheme)
    speak(speech, "mp3")
    is_accessible(speech)
    for width in (390, 1440):
        speech.set_viewport_size({"width": width, "height": 844})
        assert scroll_width(speech) == width
