"""The models page in a real browser: what the server does is on it as it happens, and its buttons do what they say."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.playground import copied, message_field, telling
from tests.own_engines import other_server, program
from tests.server import Server, save, serving

MANIFEST = """\
chat:
  bird:
    backend: echo
    description: Says what it hears.
  demo:
    backend: mlx-lm
    path: demo
    aliases: [gpt-4o-mini]
speech:
  beep: {backend: echo}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, MANIFEST) as server:
        yield server


@pytest.fixture
def models(page: Page, server: Server) -> Page:
    page.goto(server.url)
    expect(model(page, "bird")).to_be_visible()
    return page


def model(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def badge(page: Page, name: str) -> Locator:
    return model(page, name).locator(".badge").first


def test_each_model_is_told_with_what_the_manifest_says_of_it(models: Page) -> None:
    expect(model(models, "bird")).to_contain_text("Says what it hears.")
    expect(model(models, "demo")).to_contain_text("mlx-lm · demo · alias gpt-4o-mini")
    expect(models.get_by_role("region", name="Speech models").get_by_role("article")).to_have_count(1)


def test_it_tells_where_clients_find_the_api(models: Page, server: Server) -> None:
    expect(models.locator(".page-head")).to_contain_text(f"{server.url}/v1")
    assert copied(models.get_by_role("button", name="Copy the base_url")) == f"{server.url}/v1"
    expect(models.get_by_role("button", name="Copied")).to_be_visible()


def test_it_copies_where_the_browser_has_no_clipboard_object(page: Page, server: Server) -> None:
    """As on pages that are not of this machine and not under https."""
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(server.url)
    page.get_by_role("button", name="Copy the base_url").click()
    expect(page.get_by_role("button", name="Copied", exact=True)).to_be_visible()
    page.get_by_role("link", name="Chat", exact=True).click()
    message_field(page).press("Control+V")
    expect(message_field(page)).to_have_value(f"{server.url}/v1")


def test_of_many_models_some_are_found_by_words_also_in_the_menu_of_the_chat(page: Page, tmp_path: Path) -> None:
    names = [f"bird-{number}" for number in range(10)]
    entries = {name: {"backend": "echo", "description": f"Sings song {name[-1]}."} for name in names}
    with serving(tmp_path, json.dumps({"chat": entries})) as server:
        page.goto(server.url)
        expect(page.get_by_role("article")).to_have_count(10)
        page.get_by_label("Find a model").fill("UNLOADED song 7")
        expect(page.get_by_role("article")).to_have_count(1)
        expect(model(page, "bird-7")).to_be_visible()
        page.get_by_label("Find a model").fill("no such bird")
        expect(page.get_by_text("No model matches all of these words.")).to_be_visible()

        page.get_by_role("link", name="Chat", exact=True).click()
        page.locator(".model-menu > summary").click()
        expect(page.get_by_role("group", name="Models to talk to").get_by_role("checkbox")).to_have_count(10)
        page.get_by_role("group", name="Models to talk to").get_by_label("Find a model").fill("song 7")
        page.get_by_role("checkbox").check()
        expect(page.get_by_role("region", name="Conversation with bird-7")).to_be_visible()
        page.close()


def test_a_button_that_was_pressed_keeps_the_focus_while_it_becomes_another(models: Page) -> None:
    models.get_by_role("button", name="Load bird").press("Enter")
    expect(models.get_by_role("button", name="Unload bird")).to_be_focused()
    models.get_by_role("button", name="Pin bird").press("Enter")
    expect(models.get_by_role("button", name="Unpin bird")).to_be_focused()


def test_the_second_half_of_a_double_click_does_not_end_what_the_first_began(models: Page, server: Server) -> None:
    models.get_by_role("button", name="Load bird").click()
    models.get_by_role("button", name="Unload bird").dispatch_event("click", {"detail": 2})
    models.get_by_role("button", name="Pin bird").click()
    expect(model(models, "bird")).to_contain_text("pinned manually")
    assert (server.model("bird")["loads"], server.model("bird")["state"]) == (1, "ready")


def test_a_model_appears_when_the_manifest_is_saved_and_goes_with_its_entry(models: Page, folder: Path) -> None:
    save(folder / "models.yaml", MANIFEST.replace("chat:\n", "chat:\n  newcomer: {backend: echo}\n"))
    expect(badge(models, "newcomer")).to_have_text("unloaded")
    expect(models.get_by_role("region", name="Manifest")).to_contain_text("newcomer added")
    flock = "".join(f"  bird-{number}: {{backend: echo}}\n" for number in range(40))
    save(folder / "models.yaml", MANIFEST.replace("chat:\n", f"chat:\n{flock}"))
    expect(models.get_by_role("region", name="Manifest")).to_contain_text(
        "bird-10, bird-11 and 28 more added; newcomer removed"
    )
    save(folder / "models.yaml", MANIFEST)
    expect(model(models, "bird-39")).to_have_count(0)


def test_a_place_is_underlined_up_to_a_comment(models: Page, folder: Path) -> None:
    wrong = MANIFEST.replace("description: Says what it hears.", 'descripton: "No # comment" # a comment')
    save(folder / "models.yaml", wrong)
    expect(models.locator("tr.marked b")).to_have_text('descripton: "No # comment"')
    expect(models.locator("tr.marked")).to_contain_text("# a comment")


def test_a_mistake_is_shown_with_its_lines_when_it_is_saved_and_goes_when_it_is_mended(
    models: Page, folder: Path
) -> None:
    manifest = models.get_by_role("region", name="Manifest")
    expect(manifest).to_contain_text("active")

    save(folder / "models.yaml", MANIFEST.replace("aliases", "aliasses"))
    expect(manifest.locator(".problem")).to_contain_text("models.yaml:8:5")
    expect(manifest.locator(".problem")).to_contain_text("did you mean 'aliases'?")
    expect(manifest.locator("tr")).to_have_text(
        ["5  demo:", "6    backend: mlx-lm", "7    path: demo", "8    aliasses: [gpt-4o-mini]", "9speech:",
         "10  beep: {backend: echo}", "11"]
    )  # fmt: skip
    expect(manifest.locator("tr.marked")).to_have_text("8    aliasses: [gpt-4o-mini]")
    expect(manifest).to_contain_text("still serving revision 1")
    expect(models.get_by_role("link", name="Models")).to_contain_text("1")

    save(folder / "models.yaml", MANIFEST)
    expect(manifest.locator(".problem")).to_have_count(0)
    expect(manifest).to_contain_text("active")


def test_a_line_of_the_manifest_is_text_and_never_markup(models: Page, folder: Path) -> None:
    save(folder / "models.yaml", 'chat:\n  "<img src=x onerror=alert(1)>": {backend: nothing}\n')
    expect(models.locator("tr.marked")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(models.locator("img[src=x]")).to_have_count(0)


def test_load_and_unload(models: Page, server: Server) -> None:
    demo = model(models, "demo")
    demo.get_by_role("button", name="Load demo").click()
    expect(badge(models, "demo")).to_have_text("ready")
    assert server.model("demo")["state"] == "ready"
    expect(demo).to_contain_text(f"process {server.model('demo')['place']['pid']}")
    expect(demo.locator(".figures dd").first).to_contain_text("MB")

    demo.get_by_role("button", name="Unload demo").click()
    expect(badge(models, "demo")).to_have_text("unloaded")
    assert server.model("demo")["place"]["pid"] is None


def test_pin_loads_and_keeps_and_unpin_takes_it_back(models: Page, server: Server) -> None:
    bird = model(models, "bird")
    bird.get_by_role("button", name="Pin bird").click()
    expect(bird).to_contain_text("pinned manually")
    expect(badge(models, "bird")).to_have_text("ready")
    assert server.model("bird")["pinned"] is True

    bird.get_by_role("button", name="Unpin bird").click()
    expect(bird).not_to_contain_text("pinned manually")
    assert server.model("bird")["pinned"] is False


def test_what_the_manifest_pins_has_no_button_for_it(models: Page, folder: Path) -> None:
    save(folder / "models.yaml", MANIFEST.replace("    backend: echo\n", "    backend: echo\n    pin: true\n"))
    expect(model(models, "bird")).to_contain_text("pinned by the manifest")
    expect(model(models, "bird").get_by_role("button", name="pin bird")).to_have_count(0)


def test_a_model_that_does_not_load_says_why(page: Page, tmp_path: Path, refusals: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with serving(tmp_path, "chat: {broken: {backend: mlx-lm, path: ./empty}}") as server:
        page.goto(server.url)
        with page.expect_console_message(lambda message: "503" in message.text):
            model(page, "broken").get_by_role("button", name="Load broken").click()
        expect(model(page, "broken").get_by_role("alert")).to_contain_text("Load failed")
        expect(badge(page, "broken")).to_have_text("failed")
    assert any("503" in refusal for refusal in refusals)


def test_a_worker_that_died_is_told_and_needs_nobody(models: Page, server: Server) -> None:
    os.kill(server.request("POST", "/admin/models/demo/load").json()["place"]["pid"], signal.SIGKILL)
    expect(model(models, "demo")).to_contain_text("its worker was killed by SIGKILL")
    expect(model(models, "demo")).to_contain_text("1 unexpected worker exit")
    expect(badge(models, "demo")).to_have_text("unloaded")
    expect(model(models, "demo").locator(".notice.bad")).to_have_count(0)


def test_running_requests_and_their_speed_are_seen_and_end(page: Page, tmp_path: Path, endless_model: Path) -> None:
    manifest = f"chat: {{endless: {{backend: mlx-lm, path: {endless_model}, defaults: {{temperature: 0}}}}}}"
    with serving(tmp_path, manifest) as server:
        page.goto(server.url)
        expect(badge(page, "endless")).to_have_text("unloaded")
        stream = server.client().chat.completions.create(
            model="endless", messages=[{"role": "user", "content": "Tell me a story."}], stream=True, max_tokens=90_000
        )
        next(iter(stream))
        figures = model(page, "endless").locator(".figures dd")
        expect(figures.nth(1)).to_have_text("1")
        expect(figures.nth(3)).not_to_have_text("0")
        expect(page.get_by_role("img", name="Tokens per second").locator(".line")).to_have_count(1)
        stream.close()
        expect(figures.nth(1)).to_have_text("0")
        expect(figures.nth(3)).to_have_text("0")


def test_how_far_a_load_is_can_be_seen_and_it_can_be_stopped(page: Page, server: Server) -> None:
    """Told by a status of the test's own: what loads here is there at once."""
    status = server.status()
    status["memory"] |= {"budget_bytes": 2**30, "used_bytes": 2**28}
    demo = next(each for each in status["models"] if each["id"] == "demo")
    demo |= {"state": "loading", "progress": {"phase": "reading weights", "done": 30 * 2**20, "total": 120 * 2**20}}
    telling(page, status)
    page.goto(server.url)
    bar = page.get_by_role("progressbar", name="Loading: reading weights")
    expect(bar).to_have_js_property("position", 0.25)
    expect(model(page, "demo")).to_contain_text("reading weights · 30 MB of 120 MB · 25 %")
    expect(page.get_by_role("progressbar", name="Memory in use")).to_have_js_property("position", 0.25)
    with page.expect_response("**/admin/models/demo/unload") as replied:
        page.get_by_role("button", name="Stop loading demo").click()
    assert replied.value.ok
    expect(page.get_by_role("alert").filter(has_text="failed")).to_have_count(0)


def test_a_page_that_nobody_looks_at_lets_go_of_its_connection(page: Page, server: Server) -> None:
    def look(state: str) -> None:
        page.evaluate(
            "state => { Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            state,
        )

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.goto(server.url)
    expect(model(page, "bird")).to_be_visible()
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/status/events")):
        look("hidden")
        page.clock.fast_forward(61_000)
    before = list(asked)
    page.clock.run_for(20_000)  # in which a connection that was only lost would be tried again
    assert asked == before
    server.request("POST", "/admin/models/bird/load")
    with page.expect_request("**/status/events"):
        look("visible")
    expect(badge(page, "bird")).to_have_text("ready")


def test_a_lost_connection_is_told_and_found_again(page: Page, tmp_path: Path, refusals: list[str]) -> None:
    with serving(tmp_path, MANIFEST) as server:
        port = server.port
        page.goto(server.url)
        expect(model(page, "bird")).to_be_visible()
        server.stop(signal.SIGTERM)
        expect(page.get_by_role("alert")).to_contain_text("Connection lost")
        expect(model(page, "bird")).to_be_visible()  # what was known stays
        with serving(tmp_path, None, "--port", str(port)):
            expect(page.get_by_role("alert")).to_have_count(0)
            expect(page.get_by_role("banner")).to_contain_text("Live")
            page.close()
    assert all("ERR_" in refusal for refusal in refusals)


def test_a_model_whose_engine_cannot_answer_is_told_with_the_reason(page: Page, tmp_path: Path) -> None:
    with other_server() as other:
        manifest = json.dumps({"chat": {"remote": {"backend": "remote", "url": other.url, "preload": True}}})
        other.vitals = {"healthy": False, "reason": "out of disk"}
        with serving(tmp_path, manifest, program=program(tmp_path)) as server:
            page.goto(server.url)
            expect(model(page, "remote").get_by_text("out of disk")).to_be_visible()
            expect(model(page, "remote").locator("dd").first).to_have_text("\N{EN DASH}")  # of its memory
            other.vitals = {}
            expect(model(page, "remote").get_by_text("out of disk")).to_be_hidden()
            page.close()
