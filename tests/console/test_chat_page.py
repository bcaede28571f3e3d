"""The chat playground in a real browser, with a real model that is small and with echo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.conftest import DIALOGUES
from tests.console.playground import (
    COMPLETIONS,
    ask,
    body_of,
    choose,
    column,
    copied,
    ended,
    is_accessible,
    last_answer,
    menu_items,
    message_field,
    requested,
    scroll_width,
    send,
    telling,
    until_leases,
)
from tests.server import Server, serving

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
MARKDOWN = """# A title

Some *words*, `code`, and https://example.org/here.

| name | size |
|------|-----:|
| one  |   12 |

```python
print("Hello!")
```
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, endless_model: Path) -> Iterator[Server]:
    entries: dict[str, dict[str, Any]] = {
        "tiny": {"backend": "mlx-lm", "path": str(tiny_model), "defaults": {"temperature": 0}},
        "demo": {"backend": "mlx-lm", "path": "demo", "defaults": {"temperature": 0}},
        "endless": {
            "backend": "mlx-lm",
            "path": str(endless_model),
            "max_concurrent": 1,
            "defaults": {"temperature": 0},
        },
        "parrot": {"backend": "echo", "description": "Says what it is told."},
    }
    with serving(tmp_path_factory.mktemp("chat"), json.dumps({"chat": entries})) as server:
        yield server


@pytest.fixture
def chat(page: Page, server: Server) -> Page:
    page.goto(f"{server.url}/#chat")
    expect(message_field(page)).to_be_focused()
    return page


def measures(answer: Locator) -> str:
    return " ".join(answer.locator(".measures dd").all_inner_texts())


def set_parameter(page: Page, name: str, value: str) -> None:
    button = page.get_by_role("button", name="Parameters")
    if button.get_attribute("aria-expanded") != "true":
        button.click()
    page.locator(f"#set-{name}").fill(value)


def tell_for_ever(page: Page) -> None:
    """Have the endless model say one line again and again, a paragraph each, until it is stopped."""
    choose(page, "endless")
    set_parameter(page, "extra", json.dumps({"regex": r"(Once upon a time\n\n)+", "reasoning_effort": "none"}))
    send(page, "Tell me a story.")


def test_it_begins_with_a_real_model_that_downloads_nothing(chat: Page) -> None:
    expect(chat.locator(".column")).to_have_count(1)
    expect(column(chat, "parrot")).to_have_count(0)


def test_before_the_models_are_known_nothing_is_sent_and_nothing_written_is_lost(page: Page, server: Server) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/models", hold)
    with page.expect_request("**/v1/models"):
        page.goto(f"{server.url}/#chat/parrot")
    send(page, "hi")
    expect(page.locator("#composer-hint")).to_contain_text("Nothing can be sent yet")
    expect(message_field(page)).to_have_value("hi")
    page.unroute("**/v1/models")  # which lets go on what was held
    assert held != []
    expect(page.locator("#composer-hint")).to_contain_text("Enter sends")
    message_field(page).press("Enter")
    expect(ended(last_answer(page, "parrot")).locator(".markdown")).to_have_text("hi")


def test_the_address_can_say_which_model(chat: Page, server: Server) -> None:
    chat.goto(f"{server.url}/#chat/parrot")
    expect(column(chat, "parrot")).to_be_visible()
    expect(chat.locator(".column")).to_have_count(1)
    assert chat.url.endswith("/#chat")


def test_a_real_model_answers_and_is_measured(chat: Page) -> None:
    choose(chat, "tiny")
    answer = ask(chat, "tiny", "Tell me a story.")
    expect(answer.locator(".markdown")).to_have_text(DIALOGUES["Tell me a story."])
    told = measures(answer)
    assert "first token" in told
    assert "tokens" in told
    assert "% of the context" in told
    assert told.endswith("stop")


def test_a_text_that_was_pasted_is_folded_until_it_is_asked_for(chat: Page) -> None:
    choose(chat, "parrot")
    ask(chat, "parrot", "\n".join(f"line {number}" for number in range(60)))
    said = column(chat, "parrot").locator(".bubble")
    folded = said.bounding_box()
    said.get_by_role("button", name="Show all").click()
    expect(said.get_by_role("button", name="Show less")).to_be_visible()
    opened = said.bounding_box()
    assert folded is not None
    assert opened is not None
    assert opened["height"] > 3 * folded["height"]


def test_the_end_stays_in_sight_when_the_window_becomes_lower(chat: Page) -> None:
    choose(chat, "parrot")
    for _ in range(8):
        ask(chat, "parrot", "A line.\n\n" * 4)
    chat.set_viewport_size({"width": 390, "height": 500})
    expect(last_answer(chat, "parrot").locator(".measures")).to_be_in_viewport()


def test_the_name_of_a_model_that_answers_is_seen_in_a_narrow_column(chat: Page) -> None:
    tell_for_ever(chat)
    choose(chat, "endless", "tiny", "parrot")
    head = column(chat, "endless").locator(".column-head")
    expect(head.get_by_role("button", name="Stop")).to_be_visible()
    name = head.get_by_role("heading").bounding_box()
    column(chat, "endless").get_by_role("button", name="Stop").click()
    assert name is not None
    assert name["width"] > 30


def test_an_answer_is_seen_while_it_comes_and_stop_ends_it_at_the_server(chat: Page, server: Server) -> None:
    tell_for_ever(chat)
    answer = last_answer(chat, "endless")
    text = answer.locator(".markdown")
    expect(text).to_contain_text("Once upon a time", timeout=60_000)
    expect(answer).to_have_attribute("aria-busy", "true")  # this model never ends by itself
    until_leases(server, "endless", 1)
    expect(text).to_contain_text("Once upon a time" + " Once upon a time" * text.inner_text().count("time"))
    column(chat, "endless").get_by_role("button", name="Stop").click()
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(answer.get_by_text("Stopped by you.")).to_be_visible()
    expect(text).to_contain_text("Once upon a time")
    until_leases(server, "endless", 0)


def test_stop_sends_nothing_that_was_typed_meanwhile(chat: Page, server: Server) -> None:
    tell_for_ever(chat)
    expect(last_answer(chat, "endless").locator(".markdown")).to_contain_text("Once", timeout=60_000)
    message_field(chat).fill("and then?")
    chat.locator(".composer").get_by_role("button", name="Stop").click()
    expect(last_answer(chat, "endless").get_by_text("Stopped by you.")).to_be_visible()
    expect(chat.get_by_role("button", name="Send")).to_be_enabled()
    expect(message_field(chat)).to_have_value("and then?")
    until_leases(server, "endless", 0)


def test_escape_stops_too_wherever_the_keyboard_is_but_where_it_closes_something(chat: Page, server: Server) -> None:
    choose(chat, "endless")
    send(chat, "Tell me a story.")
    expect(last_answer(chat, "endless").locator(".markdown")).to_contain_text("Once", timeout=60_000)
    chat.locator(".model-menu > summary").press("Enter")
    chat.locator(".menu-item input").first.press("Escape")
    expect(chat.locator(".menu-item").first).to_be_hidden()
    expect(last_answer(chat, "endless")).to_have_attribute("aria-busy", "true")
    chat.get_by_role("region", name="Messages of endless").press("Escape")
    expect(last_answer(chat, "endless").get_by_text("Stopped by you.")).to_be_visible()
    until_leases(server, "endless", 0)


def test_one_text_goes_to_several_models_and_each_has_its_own_conversation(chat: Page) -> None:
    choose(chat, "tiny", "parrot")
    ask(chat, "parrot", "Count to five.")
    ended(last_answer(chat, "tiny"))
    expect(last_answer(chat, "tiny").locator(".markdown")).to_have_text("1 2 3 4 5")
    expect(last_answer(chat, "parrot").locator(".markdown")).to_have_text("Count to five.")
    chat.get_by_role("button", name="Clear the conversation with parrot").click()
    expect(column(chat, "parrot").locator(".turn")).to_have_count(0)
    expect(column(chat, "tiny").locator(".turn")).to_have_count(2)


def test_stop_of_one_conversation_leaves_the_other(chat: Page, server: Server) -> None:
    choose(chat, "endless", "parrot")
    send(chat, "Tell me a story.")
    ended(last_answer(chat, "parrot"))
    expect(last_answer(chat, "endless").locator(".markdown")).to_contain_text("Once", timeout=60_000)
    expect(last_answer(chat, "endless")).to_have_attribute("aria-busy", "true")
    chat.get_by_role("button", name="Remove endless from the page").click()
    expect(column(chat, "endless")).to_have_count(0)
    until_leases(server, "endless", 0)
    expect(last_answer(chat, "parrot").locator(".markdown")).to_have_text("Tell me a story.")


def test_markdown_is_shown_as_it_is_meant(chat: Page) -> None:
    choose(chat, "parrot")
    answer = ask(chat, "parrot", MARKDOWN)
    expect(answer.get_by_role("heading", name="A title")).to_be_visible()
    expect(answer.get_by_role("cell", name="12")).to_have_class("align-right")
    link = answer.get_by_role("link")
    expect(link).to_have_attribute("href", "https://example.org/here")
    assert {"noopener", "noreferrer"} <= set((link.get_attribute("rel") or "").split())
    assert copied(answer.get_by_role("button", name="Copy code")) == 'print("Hello!")'
    expect(answer.get_by_role("button", name="Copied")).to_be_visible()


FORMULAS = r"""Where $a_1 * b_2 * c$ and \(x * y * z\), \[ \sum_i a_i \] holds. It costs $5 to $10, or $1*2*3.

$$
\int_0^1 x^2\,dx

= \frac{1}{3}
$$
"""


def test_a_formula_is_shown_as_it_was_written(chat: Page) -> None:
    """Not with its backslashes, stars and underscores taken for markdown's: what is left is another formula."""
    choose(chat, "parrot")
    answer = ask(chat, "parrot", FORMULAS)
    shown = answer.locator("p code").all_inner_texts()
    assert shown == ["$a_1 * b_2 * c$", r"\(x * y * z\)", r"\[ \sum_i a_i \]"]
    expect(answer.locator("em")).to_have_text("2")
    code = answer.get_by_role("region", name="Code: math")
    expect(code).to_have_text("$$\n\\int_0^1 x^2\\,dx\n\n= \\frac{1}{3}\n$$", use_inner_text=True)


def test_tasks_and_breaks_in_a_table_are_shown(chat: Page) -> None:
    choose(chat, "parrot")
    answer = ask(chat, "parrot", "- [ ] one\n- [x] *two*\n\n| a |\n|---|\n| b<br>c `<br>` |")
    expect(answer.get_by_role("listitem")).to_have_text(["☐ one", "☑ two"])
    expect(answer.get_by_role("cell")).to_have_text("b\nc <br>", use_inner_text=True)


def test_each_text_runs_in_the_direction_of_its_script(chat: Page) -> None:
    """Else a full stop stands at the beginning of an Arabic sentence."""
    choose(chat, "parrot")
    arabic = "مرحبا بالعالم."
    message_field(chat).fill(arabic)
    assert directions(message_field(chat)) == ["rtl"]
    answer = ask(chat, "parrot", f"{arabic}\n\nHello.\n\n- {arabic}\n\n      {arabic}")
    assert directions(answer.locator(".block")) == ["rtl", "ltr", "rtl"]
    assert directions(answer.locator("pre")) == ["ltr"]
    assert directions(column(chat, "parrot").locator(".bubble")) == ["rtl"]


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        ("- one", " *two*\n- three\n  - four"),
        ("```\none", "\ntwo\n```\n\nthree"),
        ("| a |\n|---|\n| one |", "\n| two |\n"),
        ("> one", "\n> 1. two"),
        ("one", " **two** three"),
    ],
)
def test_what_a_reader_has_selected_stays_while_the_answer_grows(chat: Page, begun: str, more: str) -> None:
    """Also in a list, a table or a block of code that is not complete; and the end is what it would be at once."""
    result = chat.evaluate(
        """async ([begun, more]) => {
          const { showMarkdown } = await import('/console/chat/markdown.js');
          const [grown, whole] = [document.createElement('div'), document.createElement('div')];
          document.body.append(grown);
          showMarkdown(grown, begun);
          const texts = document.createTreeWalker(grown, NodeFilter.SHOW_TEXT);
          while (texts.nextNode().data.slice(0, 3) !== 'one');
          getSelection().setBaseAndExtent(texts.currentNode, 0, texts.currentNode, 3);
          const selected = new Set();
          for (let length = 0; length <= more.length; length += 1) {
            showMarkdown(grown, begun + more.slice(0, length));
            selected.add(getSelection().toString());
          }
          showMarkdown(whole, begun + more);
          grown.remove();
          return [[...selected], grown.innerHTML === whole.innerHTML];
        }""",
        [begun, more],
    )
    assert result == [["one"], True]


def directions(elements: Locator) -> list[str]:
    found: list[str] = elements.evaluate_all("all => all.map((each) => getComputedStyle(each).direction)")
    return found


def test_what_a_model_thinks_is_folded(chat: Page) -> None:
    choose(chat, "demo")
    answer = ask(chat, "demo", "Think about two plus two.")
    expect(answer.locator(".markdown")).to_have_text("Four.")
    thought = answer.get_by_text("Two and two make four.")
    expect(thought).to_be_hidden()
    answer.get_by_text("Thought for").click()
    expect(thought).to_be_visible()


def test_a_tool_call_is_shown_and_its_result_can_be_sent(chat: Page) -> None:
    choose(chat, "demo")
    set_parameter(chat, "tools", json.dumps(TOOLS))
    answer = ask(chat, "demo", "What is the weather in Paris?")
    expect(answer.get_by_text("Calls get_weather")).to_be_visible()
    expect(answer.get_by_role("region", name="Arguments of get_weather")).to_have_text('{\n  "city": "Paris"\n}')
    assert measures(answer).endswith("tool_calls")
    answer.get_by_label("Result of get_weather").fill("It is sunny.")
    answer.get_by_role("button", name="Send the result").click()
    expect(column(chat, "demo").locator(".turn.answer")).to_have_count(2)
    expect(ended(last_answer(chat, "demo")).locator(".markdown")).to_have_text("It is sunny there.")


@pytest.mark.parametrize("dialect", ["responses", "messages", "ollama"])
def test_an_answer_is_shown_alike_through_each_dialect(chat: Page, refusals: list[str], dialect: str) -> None:
    choose(chat, "demo")
    set_parameter(chat, "tools", json.dumps(TOOLS))
    chat.locator("#set-dialect").select_option(dialect)
    answer = ask(chat, "demo", "What is the weather in Paris?")
    expect(answer.get_by_role("region", name="Arguments of get_weather")).to_have_text('{\n  "city": "Paris"\n}')
    assert measures(answer).endswith("tool_calls")
    answer.get_by_label("Result of get_weather").fill("It is sunny.")
    answer.get_by_role("button", name="Send the result").click()
    expect(column(chat, "demo").locator(".turn.answer")).to_have_count(2)
    expect(ended(last_answer(chat, "demo")).locator(".markdown")).to_have_text("It is sunny there.")
    set_parameter(chat, "system", "Be brief.")
    set_parameter(chat, "tools", "")
    chat.locator("#set-reasoning_effort").select_option("low")
    answer = ask(chat, "demo", "Think about two plus two.")
    expect(answer.locator(".markdown")).to_have_text("Four.")
    answer.get_by_text("Thought for").click()
    expect(answer.get_by_text("Two and two make four.")).to_be_visible()
    assert "tokens" in measures(answer)
    set_parameter(chat, "max_tokens", "2")
    expect(ask(chat, "demo", "Count to five.")).to_contain_text("Cut off at the maximum number of tokens")
    set_parameter(chat, "temperature", "9")
    expect(ask(chat, "demo", "hi")).to_contain_text("temperature")
    is_accessible(chat)


def test_only_what_was_set_is_sent(chat: Page) -> None:
    choose(chat, "parrot")
    plain = requested(chat, "hi")
    assert plain == {
        "model": "parrot",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    ended(last_answer(chat, "parrot"))
    set_parameter(chat, "temperature", "0.5")
    set_parameter(chat, "max_tokens", "7")
    set_parameter(chat, "stop", "END\nSTOP")
    set_parameter(chat, "system", "Be brief.")
    set_parameter(chat, "extra", '{"logit_bias": {"1": 5}}')
    chat.locator("#set-reasoning_effort").select_option("low")
    body = requested(chat, "again")
    assert {key: value for key, value in body.items() if key not in plain} == {
        "temperature": 0.5,
        "max_tokens": 7,
        "reasoning_effort": "low",
        "stop": ["END", "STOP"],
        "logit_bias": {"1": 5},
    }
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "again"},
    ]


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("temperature", "warm", 'temperature: "warm" is not a number.'),
        ("seed", "1.5", 'seed: "1.5" is not a whole number.'),
        ("tools", "[{", "tools: this is not valid JSON."),
        ("response_format", "[]", "response_format: expected an object, found a list."),
        ("extra", '{"model": "x"}', "extra: 'model' is set by the page."),
    ],
)
def test_a_parameter_that_is_wrong_is_named_and_nothing_is_sent(chat: Page, name: str, typed: str, said: str) -> None:
    choose(chat, "parrot")
    set_parameter(chat, name, typed)
    chat.route(COMPLETIONS, lambda route: pytest.fail(f"sent {route.request.post_data}"))
    send(chat, "hi")
    expect(chat.get_by_role("alert")).to_contain_text(said)
    expect(chat.locator(f"#set-{name}")).to_have_attribute("aria-invalid", "true")
    expect(message_field(chat)).to_have_value("hi")


def test_an_error_is_shown_as_the_server_said_it(chat: Page, refusals: list[str]) -> None:
    choose(chat, "parrot")
    set_parameter(chat, "temperature", "9")
    answer = ask(chat, "parrot", "hi")
    expect(answer).to_contain_text("Invalid 'temperature': should be less than or equal to 2; found the number 9.")
    expect(answer).to_contain_text("400 · invalid_value · temperature")
    set_parameter(chat, "temperature", "")
    answer.get_by_role("button", name="Again").click()
    expect(column(chat, "parrot").locator(".turn.answer")).to_have_count(1)
    expect(ended(last_answer(chat, "parrot")).locator(".markdown")).to_have_text("hi")


def test_a_field_that_the_server_does_not_know_is_told(chat: Page) -> None:
    choose(chat, "parrot")
    set_parameter(chat, "extra", '{"colour": "blue"}')
    expect(ask(chat, "parrot", "hi")).to_contain_text("Ignored by the server: colour")


def test_the_last_message_can_be_edited_and_the_answer_had_again(chat: Page) -> None:
    choose(chat, "parrot")
    ask(chat, "parrot", "one")
    ask(chat, "parrot", "two")
    column(chat, "parrot").get_by_role("button", name="Edit").last.click()
    chat.get_by_label("Edit the message").fill("three")
    chat.get_by_label("Edit the message").press("Enter")
    expect(ended(last_answer(chat, "parrot")).locator(".markdown")).to_have_text("three")
    with chat.expect_request(COMPLETIONS) as caught:
        last_answer(chat, "parrot").get_by_role("button", name="Again").click()
    said = [message["content"] for message in body_of(caught.value)["messages"]]
    assert said == ["one", "one", "three"]
    expect(column(chat, "parrot").locator(".turn")).to_have_count(4)


def test_an_earlier_message_can_be_said_otherwise_and_what_came_after_it_goes(chat: Page) -> None:
    choose(chat, "parrot")
    ask(chat, "parrot", "one")
    ask(chat, "parrot", "two")
    column(chat, "parrot").get_by_role("button", name="Edit").first.press("Enter")
    expect(column(chat, "parrot").get_by_text("Later messages will be removed.")).to_be_visible()
    chat.get_by_label("Edit the message").fill("three")
    with chat.expect_request(COMPLETIONS) as caught:
        chat.get_by_role("button", name="Send again").click()
    assert [message["content"] for message in body_of(caught.value)["messages"]] == ["three"]
    expect(ended(last_answer(chat, "parrot")).locator(".markdown")).to_have_text("three")
    expect(last_answer(chat, "parrot")).to_contain_text("1 token")
    expect(column(chat, "parrot").locator(".turn")).to_have_count(2)


def test_an_edit_that_cannot_be_sent_is_not_lost(chat: Page) -> None:
    choose(chat, "parrot")
    ask(chat, "parrot", "one")
    set_parameter(chat, "temperature", "warm")
    column(chat, "parrot").get_by_role("button", name="Edit").click()
    chat.get_by_label("Edit the message").fill("two")
    chat.get_by_label("Edit the message").press("Enter")
    expect(chat.get_by_role("alert")).to_contain_text('"warm" is not a number.')
    expect(chat.get_by_label("Edit the message")).to_have_value("two")
    set_parameter(chat, "temperature", "")
    chat.get_by_role("button", name="Send again").click()
    expect(ended(last_answer(chat, "parrot")).locator(".markdown")).to_have_text("two")


def test_what_was_cleared_can_be_brought_back_until_something_is_said(chat: Page) -> None:
    choose(chat, "parrot")
    ask(chat, "parrot", "one")
    clear = chat.get_by_role("button", name="Clear the conversation with parrot")
    clear.press("Enter")
    back = chat.get_by_role("button", name="Restore the conversation")
    back.press("Enter")
    expect(last_answer(chat, "parrot").locator(".markdown")).to_have_text("one")
    expect(chat.get_by_role("region", name="Messages of parrot")).to_be_focused()
    clear.press("Enter")
    expect(back).to_be_visible()
    ask(chat, "parrot", "two")
    clear.press("Enter")
    back.click()
    expect(column(chat, "parrot").locator(".turn.user")).to_have_text(["Edittwo"])


def test_a_conversation_can_be_kept_as_a_file(chat: Page, tmp_path: Path) -> None:
    choose(chat, "demo")
    set_parameter(chat, "system", "Be brief.")
    set_parameter(chat, "tools", json.dumps(TOOLS))
    ask(chat, "demo", "Think about two plus two.")
    answer = ask(chat, "demo", "What is the weather in Paris?")
    answer.get_by_label("Result of get_weather").fill("```\nsunny")
    answer.get_by_role("button", name="Send the result").click()
    expect(column(chat, "demo").locator(".turn.answer")).to_have_count(3)
    ended(last_answer(chat, "demo"))
    with chat.expect_download() as caught:
        chat.get_by_role("button", name="Save the conversation with demo").click()
    assert caught.value.suggested_filename == "demo.md"
    assert Path(caught.value.path()).read_text().split("\n\n")[:-1] == [
        "# Conversation with demo",
        "## System",
        "Be brief.",
        "## You",
        "Think about two plus two.",
        "## demo",
        "> Two and two make four.",
        "Four.",
        "## You",
        "What is the weather in Paris?",
        "## demo",
        "Calls `get_weather`:",
        '```json\n{"city": "Paris"}\n```',
        "## Result of get_weather",
        "````\n```\nsunny\n````",
        "## demo",
    ]


def test_what_is_copied_does_the_same_request(chat: Page, tmp_path: Path) -> None:
    choose(chat, "parrot")
    set_parameter(chat, "top_k", "3")
    set_parameter(chat, "response_format", '{"type": "text"}')
    said = 'It\'s "odd": $HOME `x` \\ \n好'
    body = requested(chat, said)
    ended(last_answer(chat, "parrot"))
    answer = last_answer(chat, "parrot")
    curl = copied(answer.get_by_role("button", name="Copy the request as curl"))
    told = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    assert told.stdout.rstrip().endswith("data: [DONE]")
    assert json.loads(curl.split("-d '", 1)[1].rsplit("'", 1)[0].replace("'\\''", "'")) == body
    script = tmp_path / "chat.py"
    script.write_text(copied(answer.get_by_role("button", name="Copy the request as Python")))
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert told.stdout == f"{said}\n"


def test_the_page_can_be_used_by_keyboard_alone(chat: Page) -> None:
    chat.locator(".model-menu > summary").focus()
    chat.keyboard.press("Enter")
    for box in menu_items(chat):
        chat.keyboard.press("Tab")
        if box.get_by_role("checkbox").is_checked() != (box.locator(".menu-name").inner_text() == "parrot"):
            chat.keyboard.press("Space")
    chat.keyboard.press("Escape")
    expect(chat.locator(".model-menu > summary")).to_be_focused()
    expect(column(chat, "parrot")).to_be_visible()
    for _ in range(20):
        chat.keyboard.press("Tab")
        if message_field(chat).evaluate("field => field === document.activeElement"):
            break
    chat.keyboard.type("one")
    chat.keyboard.press("Shift+Enter")
    chat.keyboard.type("two")
    chat.keyboard.press("Enter")
    expect(ended(last_answer(chat, "parrot")).locator(".markdown")).to_have_text("one\ntwo")
    chat.keyboard.press("Shift+Tab")
    expect(last_answer(chat, "parrot").get_by_role("button", name="Again")).to_be_focused()


def test_the_view_follows_the_answer_until_its_reader_scrolls_up(chat: Page) -> None:
    tell_for_ever(chat)
    chat.get_by_role("button", name="Close").click()
    region = chat.get_by_role("region", name="Messages of endless")
    at_end = "element => element.scrollHeight - element.scrollTop - element.clientHeight < 40"
    overflows = "() => { const e = document.querySelector('.turns'); return e.scrollHeight > e.clientHeight + 200 }"
    chat.wait_for_function(overflows, timeout=60_000)
    assert region.evaluate(at_end)
    region.hover()
    chat.mouse.wheel(0, -150)
    expect(chat.get_by_role("button", name="Jump to the end")).to_be_visible()
    top = region.evaluate("element => element.scrollTop")
    length = region.evaluate("element => element.scrollHeight")
    chat.wait_for_function("height => document.querySelector('.turns').scrollHeight > height + 100", arg=length)
    assert region.evaluate("element => element.scrollTop") == top
    chat.get_by_role("button", name="Jump to the end").click()
    expect(chat.get_by_role("button", name="Jump to the end")).to_have_count(0)
    assert region.evaluate(at_end)
    message_field(chat).press("Escape")


def test_an_answer_is_announced_once_and_whole(chat: Page) -> None:
    choose(chat, "parrot")
    heard = chat.evaluate_handle(
        """() => {
          const heard = [];
          const status = document.querySelector('.chat > [role=status]');
          new MutationObserver(() => heard.push(status.textContent)).observe(status,
            {childList: true, characterData: true, subtree: true});
          return heard;
        }"""
    )
    ask(chat, "parrot", "One two three four five.")
    expect(chat.locator(".chat > [role=status]")).to_have_text("parrot: One two three four five.")
    assert set(heard.json_value()) <= {"", "parrot: One two three four five."}
    expect(column(chat, "parrot").get_by_role("region", name="Messages")).not_to_have_attribute("aria-live", "polite")


def test_how_far_loading_is_can_be_seen(chat: Page, server: Server) -> None:
    status = server.status()
    model = next(each for each in status["models"] if each["id"] == "demo")
    model |= {"state": "loading", "progress": {"phase": "reading weights", "done": 3, "total": 4}}
    telling(chat, status)
    held: list[Route] = []
    chat.route(COMPLETIONS, lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks its handlers
    chat.reload()
    choose(chat, "demo")
    send(chat, "hi")
    progress = last_answer(chat, "demo").get_by_role("progressbar", name="Loading: reading weights")
    expect(progress).to_have_attribute("value", "0.75")


def test_what_an_answer_waits_for_can_be_seen(chat: Page, server: Server) -> None:
    choose(chat, "endless")
    question: Any = [{"role": "user", "content": "Tell me a story."}]
    with server.client().chat.completions.create(model="endless", messages=question, stream=True) as before:
        next(iter(before))  # it is being answered, and this model answers one at a time
        send(chat, "hi")
        expect(last_answer(chat, "endless")).to_contain_text("Queued for endless: position 1")
    expect(last_answer(chat, "endless").locator(".markdown")).not_to_be_empty(timeout=60_000)
    message_field(chat).press("Escape")


@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_a_phone_and_a_desk(chat: Page, width: int) -> None:
    chat.set_viewport_size({"width": width, "height": 844})
    choose(chat, "tiny", "parrot")
    if width < 760:
        chat.get_by_role("group", name="Conversation to show").get_by_role("button", name="parrot").click()
        expect(column(chat, "tiny")).to_be_hidden()
    long_line = "x" * 400
    ask(chat, "parrot", f"{MARKDOWN}\n\n```\n{long_line}\n```\n\n{long_line}\n\n|{'wide|' * 30}\n|{'-|' * 30}\n")
    assert scroll_width(chat) == width
    chat.get_by_role("button", name="Parameters").click()
    assert scroll_width(chat) == width
    assert chat.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_four_conversations_are_seen_beside_each_other_on_a_desk(chat: Page) -> None:
    choose(chat, "tiny", "demo", "endless", "parrot")
    expect(chat.locator(".column")).to_have_count(4)
    assert chat.locator(".chat-columns").evaluate("columns => columns.scrollWidth <= columns.clientWidth")


def test_the_keyboard_goes_on_from_where_a_button_went_away(chat: Page) -> None:
    choose(chat, "demo", "parrot")
    ask(chat, "parrot", "hi")
    ended(last_answer(chat, "demo"))
    said = chat.get_by_role("region", name="Messages of parrot")
    column(chat, "parrot").get_by_role("button", name="Edit").press("Enter")
    chat.get_by_label("Edit the message").press("Escape")
    expect(column(chat, "parrot").get_by_role("button", name="Edit")).to_be_focused()
    last_answer(chat, "parrot").get_by_role("button", name="Again").press("Enter")
    expect(said).to_be_focused()
    ended(last_answer(chat, "parrot"))
    chat.get_by_role("button", name="Clear the conversation with parrot").press("Enter")
    expect(said).to_be_focused()
    chat.get_by_role("button", name="Remove demo from the page").press("Enter")
    expect(chat.locator(".model-menu > summary")).to_be_focused()
    chat.get_by_role("button", name="Parameters").click()
    chat.get_by_role("button", name="Close").press("Enter")
    expect(chat.get_by_role("button", name="Parameters")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_in_all_its_states(chat: Page, refusals: list[str], scheme: Any) -> None:
    chat.emulate_media(color_scheme=scheme)
    choose(chat, "demo", "parrot")
    set_parameter(chat, "tools", json.dumps(TOOLS))
    ask(chat, "parrot", f"{MARKDOWN}\n\n> quoted\n\n1. one\n2. two")
    ended(last_answer(chat, "demo"))
    ask(chat, "demo", "Think about two plus two.")
    last_answer(chat, "demo").locator(".reasoning > summary").click()
    ask(chat, "demo", "What is the weather in Paris?")
    ended(last_answer(chat, "parrot"))
    is_accessible(chat)
    set_parameter(chat, "temperature", "9")
    ask(chat, "parrot", "hi")
    set_parameter(chat, "temperature", "hot")
    send(chat, "hi")
    chat.locator(".model-menu > summary").click()
    is_accessible(chat)


def test_models_that_are_chosen_at_once_are_all_taken(chat: Page) -> None:
    """Several clicks before the page is drawn again."""
    chat.locator(".model-menu > summary").click()
    offered = len(menu_items(chat))
    chosen = chat.evaluate(
        """() => {
          const boxes = [...document.querySelectorAll('.menu-item input')];
          boxes.forEach((box) => box.click());
          return boxes.length;
        }"""
    )
    assert chosen == offered
    expect(chat.locator(".chat-count")).to_have_text(str(chosen - 1))


# Suggestions


def test_after_a_suggestion_the_keyboard_goes_on_in_the_message_field(chat: Page) -> None:
    choose(chat, "parrot")
    chat.get_by_role("button", name="What can you do?").press("Enter")
    ended(last_answer(chat, "parrot"))
    expect(message_field(chat)).to_be_focused()


def test_what_the_demo_has_learnt_is_suggested_for_it_alone(chat: Page) -> None:
    choose(chat, "demo")
    expect(chat.get_by_role("button", name="Think about two plus two.")).to_have_count(1)
    choose(chat, "parrot")
    expect(chat.get_by_role("button", name="What can you do?")).to_have_count(1)
    expect(chat.get_by_role("button", name="Think about two plus two.")).to_have_count(0)
