"""The log on the events page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.server import Server, save, serving

MANIFEST = "chat: {bird: {backend: echo}, cat: {backend: echo}}"
SECRET_TEXT = "nobody but the model may read this"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, MANIFEST) as server:
        yield server


def test_what_happened_is_there_newest_first_and_goes_on(page: Page, server: Server, tmp_path: Path) -> None:
    server.request("POST", "/admin/models/bird/load")
    page.goto(f"{server.url}/#events")
    lines = page.get_by_role("listitem").filter(has=page.locator("time"))
    expect(lines.filter(has_text="loaded in").first).to_contain_text("bird")

    save(tmp_path / "models.yaml", "chat: {bird: {}}")
    expect(lines.first).to_contain_text("still serving revision 1")
    expect(lines.first).to_contain_text("error")
    save(tmp_path / "models.yaml", MANIFEST + "\nspeech: {beep: {backend: echo}}")
    expect(lines.first).to_contain_text("reloaded revision 2: +beep")


def test_lines_can_be_chosen_by_model_level_and_words(page: Page, server: Server, tmp_path: Path) -> None:
    for name in ("bird", "cat"):
        server.request("POST", f"/admin/models/{name}/load")
    save(tmp_path / "models.yaml", "chat: {bird: {}}")
    server.wait_for("still serving")
    page.goto(f"{server.url}/#events")
    log = page.get_by_role("list", name="Lines of the log")
    expect(log).to_contain_text("still serving")

    page.get_by_label("Model").select_option("cat")
    expect(log).to_contain_text("loaded in")
    expect(log).not_to_contain_text("bird")
    page.get_by_label("Level").select_option("error")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_label("Model").select_option("")
    expect(log).to_contain_text("manifest rejected")
    expect(log).not_to_contain_text("loaded in")
    page.get_by_label("Words").fill("SERVING")
    expect(log.get_by_role("listitem").filter(has_not_text="still serving")).to_have_count(0)
    expect(log).to_contain_text("still serving revision 1")


def test_what_people_say_to_models_is_not_there(page: Page, server: Server) -> None:
    body = {"model": "bird", "messages": [{"role": "user", "content": SECRET_TEXT}]}
    assert server.request("POST", "/v1/chat/completions", body).status == 200
    assert server.request("POST", "/v1/chat/completions", {**body, "temperature": SECRET_TEXT}).status == 400
    page.goto(f"{server.url}/#events")
    expect(page.get_by_role("list", name="Lines of the log")).to_contain_text("400: Invalid 'temperature': ")
    assert SECRET_TEXT not in page.content()


MANY_LINES = """{
  const fetched = window.fetch;
  const told = new TextEncoder();
  window.fetch = async (path, ...more) => {
    if (path !== "/status/events") return fetched(path, ...more);
    const status = await (await fetched("/status")).json();
    return new Response(new ReadableStream({ start: (stream) => {
      const event = (name, content) => `event: ${name}\\ndata: ${JSON.stringify(content)}\\n\\n`;
      const line = (number) => ({ number, time: 1, level: "info", model: null, message: `line ${number}` });
      stream.enqueue(told.encode(event("status", status)));
      window.write = (from, to) => {
        const events = Array.from({ length: to - from }, (_, at) => event("log", { records: [line(from + at)] }));
        stream.enqueue(told.encode(events.join("")));
      };
    } }));
  };
}"""


def test_hundreds_of_lines_at_once_are_drawn_together(page: Page, server: Server) -> None:
    page.add_init_script(MANY_LINES)
    page.goto(f"{server.url}/#events")
    expect(page.get_by_role("banner")).to_contain_text("Live")
    page.evaluate("write(0, 1)")
    log = page.get_by_role("list", name="Lines of the log")
    expect(log).to_contain_text("line 0")
    drawings = page.evaluate_handle(
        """() => {
          const drawings = { count: 0 };
          const log = document.querySelector(".log");
          new MutationObserver(() => (drawings.count += 1)).observe(log, { childList: true });
          return drawings;
        }"""
    )
    page.evaluate("write(1, 301)")
    expect(log.get_by_role("listitem")).to_have_count(301)
    expect(log.get_by_role("listitem").first).to_contain_text("line 300")
    assert drawings.evaluate("drawings => drawings.count") <= 3
