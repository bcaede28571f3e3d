"""The page that edits the manifest: forms from the schema, the plan before a save, conflicts, and profiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.edited_server import as_at_first, edited_server
from tests.server import Server, save

MANIFEST = """\
# mine
chat:
  bird:   # sings
    backend: echo
    aliases: [sparrow]
speech:
  beep: {backend: echo}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with edited_server(tmp_path_factory.mktemp("console-edits"), MANIFEST) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    return as_at_first(shared, MANIFEST)


@pytest.fixture
def editor(page: Page, server: Server) -> Page:
    page.goto(f"{server.url}/#manifest")
    expect(page.get_by_role("button", name="Edit bird")).to_be_visible()
    return page


def file(server: Server) -> Path:
    return server.folder / "models.yaml"


def field(page: Page, name: str) -> Locator:
    return page.get_by_label(name, exact=True)


def preview_and_save(page: Page) -> None:
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("region", name="Plan").get_by_role("button", name="Save").click()


def test_a_model_is_added_by_its_form_and_appears(editor: Page, server: Server) -> None:
    editor.get_by_label("Add a model or a peer").select_option("chat")
    field(editor, "id required").fill("robin")
    field(editor, "backend required").select_option("echo")
    editor.get_by_text("More options").click()
    field(editor, "aliases").fill("red\nbreast")
    field(editor, "max_concurrent").fill("3")
    field(editor, "preload").select_option("true")
    editor.get_by_role("button", name="Preview").click()
    plan = editor.get_by_role("region", name="Plan")
    expect(plan).to_contain_text("robin is new")
    assert file(server).read_text() == MANIFEST
    plan.get_by_role("button", name="Save").click()
    expect(editor.get_by_role("button", name="Edit robin")).to_be_visible()
    assert file(server).read_text() == MANIFEST.replace(
        "speech:",
        "  robin:\n    backend: echo\n    aliases: [red, breast]\n    max_concurrent: 3\n    preload: true\nspeech:",
    )
    editor.get_by_role("button", name="Undo the last save").click()
    expect(editor.get_by_role("button", name="Edit robin")).to_have_count(0)
    assert file(server).read_text() == MANIFEST


def test_a_model_to_begin_with_is_offered_with_its_size_and_added(editor: Page, server: Server) -> None:
    editor.get_by_text("Models to start with").click()
    editor.get_by_role("button", name="Add qwen3-0.6b").click()
    expect(field(editor, "id required")).to_have_value("qwen3-0.6b")
    preview_and_save(editor)
    expect(editor.get_by_role("button", name="Edit qwen3-0.6b")).to_be_visible()
    assert "  qwen3-0.6b:\n    backend: mlx-lm\n    path: mlx-community/Qwen3-0.6B-4bit\n" in file(server).read_text()

    editor.get_by_text("Models to start with").click()
    expect(editor.get_by_text("in the manifest as qwen3-0.6b")).to_be_visible()
    expect(editor.get_by_text("will download").first).to_be_visible()


def test_a_model_is_changed_by_its_lines_and_removed(editor: Page, server: Server) -> None:
    editor.get_by_role("button", name="Edit bird").click()
    editor.get_by_role("button", name="YAML").click()
    lines = editor.get_by_label("Lines in the file")
    expect(lines).to_have_value("bird:   # sings\n  backend: echo\n  aliases: [sparrow]\n")
    lines.fill("bird:   # sings\n  backend: echo   # loud\n")
    preview_and_save(editor)
    expect(editor.get_by_text("Saved")).to_be_visible()
    assert "  bird:   # sings\n    backend: echo   # loud\nspeech:" in file(server).read_text()

    editor.get_by_role("button", name="Remove bird").click()
    plan = editor.get_by_role("region", name="Plan")
    expect(plan).to_contain_text("bird is removed")
    plan.get_by_role("button", name="Save").click()
    expect(editor.get_by_text("Removed bird", exact=True)).to_be_visible()
    assert "bird" not in file(server).read_text()


def test_what_is_wrong_is_told_at_its_field_and_nothing_is_saved(
    editor: Page, server: Server, refusals: list[str]
) -> None:
    editor.get_by_role("button", name="Edit bird").click()
    editor.get_by_text("More options").click()
    field(editor, "keep_alive").fill("soon")
    editor.get_by_role("button", name="Preview").click()
    expect(field(editor, "keep_alive")).to_have_attribute("aria-invalid", "true")
    expect(editor.get_by_role("alert")).to_contain_text("soon")
    assert file(server).read_text() == MANIFEST
    field(editor, "keep_alive").fill("1h")
    editor.get_by_role("button", name="Preview").click()
    expect(editor.get_by_role("region", name="Plan")).to_contain_text("keep_alive")
    assert refusals


def test_what_an_editor_saved_meanwhile_is_not_overwritten(editor: Page, server: Server, refusals: list[str]) -> None:
    editor.get_by_role("button", name="Edit bird").click()
    field(editor, "aliases").fill("wren")
    editor.get_by_role("button", name="Preview").click()
    expect(editor.get_by_role("region", name="Plan")).to_be_visible()
    save(file(server), MANIFEST.replace("beep", "boop").replace("sparrow]", "sparrow]\n    pin: true"))
    editor.get_by_role("region", name="Plan").get_by_role("button", name="Save").click()
    expect(editor.get_by_role("region", name="Changed in the meantime")).to_contain_text("+  boop: {backend: echo}")
    assert "wren" not in file(server).read_text()
    editor.get_by_role("button", name="Apply my change to the new version").click()
    expect(editor.get_by_role("region", name="Changed in the meantime")).to_have_count(0)
    expect(field(editor, "aliases")).to_have_value("wren")
    preview_and_save(editor)
    expect(editor.get_by_text("Saved")).to_be_visible()
    assert file(server).read_text() == MANIFEST.replace("beep", "boop").replace("sparrow]", "wren]\n    pin: true")
    assert refusals


def test_a_model_of_an_included_file_is_edited_in_that_file(page: Page, server: Server, refusals: list[str]) -> None:
    more = server.folder / "more.yaml"
    more.write_text("chat:\n  other: {backend: echo, aliases: [wren]}   # theirs\n")
    save(file(server), f"include: [more.yaml]\n{MANIFEST}")
    server.reload()
    page.goto(f"{server.url}/#manifest")
    expect(page.get_by_role("region", name="Chat")).to_contain_text("more.yaml, line 2")
    page.get_by_role("button", name="Edit other").click()
    more.write_text("chat:\n  other: {backend: echo, aliases: [wren]}   # theirs, too\n")
    field(page, "aliases").fill("parrot")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Apply my change to the new version").click()
    preview_and_save(page)
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    assert more.read_text() == "chat:\n  other: {backend: echo, aliases: [parrot]}   # theirs, too\n"


def test_a_profile_is_chosen_while_the_server_runs(editor: Page, server: Server, refusals: list[str]) -> None:
    field(editor, "Profile").select_option("fast")
    expect(editor.get_by_text("The profile fast is active")).to_be_visible()
    editor.get_by_role("button", name="Edit bird").click()
    expect(editor.get_by_text("fast.yaml:1:28 takes precedence")).to_be_visible()
    editor.get_by_role("button", name="Cancel").click()
    field(editor, "Profile").select_option("broken")
    expect(editor.get_by_role("alert")).to_contain_text("nope")
    expect(field(editor, "Profile")).to_have_value("fast")
    field(editor, "Profile").select_option("none")
    expect(editor.get_by_text("No profile is active")).to_be_visible()
    assert refusals


def test_without_the_right_to_edit_it_only_shows(page: Page, server: Server) -> None:
    save(file(server), f"server: {{console_edits: false}}\n{MANIFEST}")
    assert server.request("POST", "/admin/reload").status == 200
    page.goto(f"{server.url}/#manifest")
    expect(page.get_by_text("console_edits: false")).to_be_visible()
    expect(page.get_by_role("button", name="Edit bird")).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_the_form_fits_the_screen_and_passes_axe(page: Page, server: Server, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    page.goto(f"{server.url}/#manifest/chat/bird")
    expect(page.get_by_role("form", name="chat.bird")).to_be_visible()
    page.get_by_text("More options").click()
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("region", name="Plan")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
