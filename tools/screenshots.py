"""Take the documents' pictures from the running console, so that they stay true.

    uv run --group test --with pillow python tools/screenshots.py

A server with the demo model is started, used for a moment, and looked at, in light and in dark.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.console.conftest import ARGUMENTS, found
from tests.server import Server, serving

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 1200, 760
COLOURS = 128
"""Colours of a picture: enough for text and lines, at a third of the bytes."""

MANIFEST = """\
chat:
  assistant: {backend: mlx-lm, path: demo, aliases: [gpt-4o-mini], pin: true}
  coder: {backend: mlx-lm, path: demo, aliases: [claude-sonnet-4-5]}
  echo: {backend: echo}
speech:
  voice: {backend: espeak-ng, aliases: [tts-1]}
transcription:
  subtitles: {backend: echo, aliases: [whisper-1]}
embedding:
  vectors: {backend: echo, aliases: [text-embedding-3-small]}
"""
STREAMS = 2
"""Answers at the same time. Between the answers of one alone, the speed is 0."""
QUESTIONS = ("What can you do?", "What is the capital of France?", "Count to five.", "Say hello.")


def main() -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), MANIFEST) as server, browser() as chromium:
        use(server)
        for _ in range(STREAMS):
            threading.Thread(target=keep_using, args=(server,), daemon=True).start()
        for theme in ("light", "dark"):
            with opened(chromium, server, theme) as page:
                take_models(page, theme)
                take_chat(page, server, theme)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser without windows."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found(playwright), args=[*ARGUMENTS, "--no-sandbox"])


@contextlib.contextmanager
def opened(chromium: Browser, server: Server, theme: Literal["light", "dark"]) -> Iterator[Page]:
    """The console in an empty profile of that theme."""
    with chromium.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.goto(server.url)
        yield page


def use(server: Server) -> None:
    """Give the overview something to show: loaded models, and some requests."""
    server.wait_for("assistant: loaded")
    for number in range(12):
        model = ("assistant", "coder", "echo")[number % 3]
        question = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
        server.request("POST", "/v1/chat/completions", {"model": model, "messages": question})
    server.request("POST", "/v1/audio/speech", {"model": "voice", "input": "Good morning!"})


def keep_using(server: Server) -> None:
    """Have the overview's lines move until the server is gone."""
    story = {"model": "coder", "messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 1}
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            server.request("POST", "/v1/chat/completions", story)


def take_models(page: Page, theme: str) -> None:
    expect(page.get_by_text("assistant").first).to_be_visible()
    page.wait_for_timeout(15_000)  # the lines of memory and of requests have some length
    speed = page.get_by_role("region", name="Speed").locator(".figure-value")
    expect(speed).not_to_have_text(re.compile(r"^0 "), timeout=120_000)  # 0 for a moment on a busy machine
    save(page, f"models-{theme}")


def take_chat(page: Page, server: Server, theme: str) -> None:
    page.goto(f"{server.url}/#chat/assistant")
    field = page.get_by_label("Message", exact=True)
    for question in QUESTIONS[:2]:
        expect(page.locator(".composer").get_by_role("button", name="Send")).to_be_visible()
        field.fill(question)
        field.press("Enter")
        answer = page.locator(".turn.answer").last
        expect(answer).to_have_attribute("aria-busy", "false")
    save(page, f"chat-{theme}")


def save(page: Page, name: str) -> None:
    """Write the page as it looks, in few colours."""
    picture = Image.open(io.BytesIO(page.screenshot()))
    few = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    path = PICTURES / f"{name}.png"
    few.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
