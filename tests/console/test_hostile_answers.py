"""Answers are text on the page, whatever they contain: they run nothing, load nothing, and link nowhere odd."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, Request, expect

from tests.console.playground import (
    COMPLETIONS,
    answering,
    ask,
    choose,
    column,
    ended,
    last_answer,
    message_field,
    refusing,
    telling,
)
from tests.server import Server, serving

RUN = "window.ran=true"
HOSTILE = {
    "image": f"<img src=x onerror={RUN}>",
    "script": f"<script>{RUN}</script>",
    "svg": f"<svg onload={RUN}><script>{RUN}</script></svg>",
    "nested": f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror={RUN}&gt;'>",
    "frame": f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe><object data='javascript:{RUN}'></object>",
    "form": f"<form action='javascript:{RUN}'><button autofocus onfocus={RUN}>x</button></form>",
    "style": "<style>*{display:none}</style><p style='position:fixed'>x</p><link rel=stylesheet href=//x.example>",
    "meta": f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'><base href='https://x.example/'>",
    "script link": f"[x](javascript:{RUN})",
    "script link in parts": f"[x](java\nscript:{RUN}) [x](JaVaScRiPt:{RUN}) [x]( javascript:{RUN})",
    "script link by entity": f"[x](&#106;avascript:{RUN}) [x](javascript&colon;{RUN}) [x](&#x01;javascript:{RUN})",
    "script link by reference": f"[x][y]\n\n[y]: javascript:{RUN}\n\n<javascript:{RUN}>",
    "data link": f"[x](data:text/html,<script>{RUN}</script>) [x](data:image/svg+xml,<svg onload={RUN}>)",
    "other links": "[a](vbscript:x) [b](file:///etc/passwd) [c](blob:x) [d](//x.example) [e](/admin) [f](#models)",
    "image address": f"![x](javascript:{RUN}) ![x](https://x.example/pixel.png) ![x](data:image/svg+xml,<svg>)",
    "broken out of": f'[x](https://x.example/"onmouseover="{RUN}) ![" onerror="{RUN}](https://x.example/"><img src=x>)',
    "title": f'[x](https://x.example "\\" onclick=\\"{RUN}")',
    "code": f'```"><img src=x onerror={RUN}>\n</code></pre><script>{RUN}</script>\n```\n\n`<img src=x onerror={RUN}>`',
    "formula": f"$<img src=x onerror={RUN}>$ \\(<svg onload={RUN}>\\)\n\n$$\n</pre><img src=x onerror={RUN}>\n$$",
    "break": f"<br><br onclick={RUN}><br/><br style='position:fixed'>",
    "table": f"| <img src=x onerror={RUN}> |\n|:-:|\n| [x](javascript:{RUN}) |",
    "clobbering": "<a id=body name=getElementById href=https://x.example>x</a><input name=children>",
    "template": "${" + RUN + "} {{" + RUN + "}} </textarea></template><!-- -->",
}
CHECK = """() => {
  const odd = [];
  const rooms = document.querySelectorAll('.turns, .calls, .notice, .sr, .model-menu, .speech, .composer');
  for (const room of rooms) {
    for (const element of room.querySelectorAll('*')) {
      const name = element.localName;
      if (['img', 'script', 'iframe', 'object', 'embed', 'style', 'link', 'meta', 'base', 'math', 'template', 'video']
          .includes(name)) odd.push(name);
      for (const { name: attribute, value } of element.attributes) {
        if (attribute.startsWith('on') || ['style', 'srcdoc', 'formaction', 'action'].includes(attribute))
          odd.push(`${name} ${attribute}`);
        if (['href', 'src'].includes(attribute) && !/^(https?:\\/\\/|mailto:|blob:)/.test(value))
          odd.push(`${name} ${attribute} ${value}`);
      }
    }
  }
  if (window.ran) odd.push('it ran');
  return odd;
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    manifest = {
        "chat": {"parrot": {"backend": "echo", "description": HOSTILE["image"]}},
        "speech": {"tone": {"backend": "echo", "voices": {HOSTILE["image"]: HOSTILE["script"]}}},
    }
    with serving(tmp_path_factory.mktemp("hostile"), json.dumps(manifest)) as server:
        yield server


@pytest.fixture
def asked(page: Page, server: Server) -> Iterator[list[str]]:
    """Addresses that the page asked for elsewhere; where there was one when the test ends, it failed."""
    elsewhere: list[str] = []

    def on_request(request: Request) -> None:
        if not request.url.startswith((server.url, "blob:")):
            elsewhere.append(request.url)

    page.on("request", on_request)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    page.on("popup", lambda popup: pytest.fail(f"a window: {popup.url}"))
    yield elsewhere
    assert elsewhere == []
    assert page.url.startswith(server.url)


@pytest.fixture
def chat(page: Page, server: Server, asked: list[str]) -> Page:
    page.goto(f"{server.url}/#chat")
    expect(message_field(page)).to_be_focused()
    choose(page, "parrot")
    return page


def is_harmless(page: Page, *texts: Locator) -> None:
    """Nothing ran, and nothing is there that could; also not under the pointer or in focus."""
    for text in texts:
        text.hover()
    message_field(page).press("Shift+Tab")
    assert page.evaluate(CHECK) == []


def test_an_answer_is_harmless(chat: Page) -> None:
    for text in HOSTILE.values():
        is_harmless(chat, ask(chat, "parrot", text))


def test_an_answer_is_harmless_at_each_character_that_comes(chat: Page) -> None:
    odd = chat.evaluate(
        f"""async (texts) => {{
          const {{ showMarkdown }} = await import('/console/chat/markdown.js');
          const room = document.createElement('div');
          room.className = 'turns';
          const element = document.createElement('div');
          room.append(element);
          document.body.append(room);
          const odd = new Set();
          for (const text of texts)
            for (let length = 0; length <= text.length; length += 1) {{
              showMarkdown(element, text.slice(0, length));
              ({CHECK})().forEach((each) => odd.add(each));
            }}
          return [...odd];
        }}""",
        list(HOSTILE.values()),
    )
    assert odd == []


def test_thoughts_and_tool_calls_are_harmless(chat: Page) -> None:
    for text in HOSTILE.values():
        call = {"index": 0, "id": text, "type": "function", "function": {"name": text, "arguments": ""}}
        arguments = [{"tool_calls": [{"index": 0, "function": {"arguments": each}}]} for each in text]
        thoughts = [{"reasoning_content": each} for each in text]
        answering(chat, [*thoughts, {"content": text}, {"tool_calls": [call]}, *arguments])
        answer = ask(chat, "parrot", "hi")
        answer.locator(".reasoning > summary").click()
        expect(answer.locator(".reasoning-text")).to_have_text(text, use_inner_text=True)
        expect(answer.locator(".call pre")).to_have_text(text)
        answer.locator(".call textarea").fill(text)
        answer.get_by_role("button", name="Send the result").click()
        result = column(chat, "parrot").locator(".turn.tool")
        expect(result).to_have_count(1)
        is_harmless(chat, ended(last_answer(chat, "parrot")), result)
        chat.get_by_role("button", name="Clear the conversation with parrot").click()
        expect(column(chat, "parrot").locator(".turn")).to_have_count(0)
        chat.unroute(COMPLETIONS)


def test_errors_are_harmless(chat: Page, refusals: list[str]) -> None:
    for text in HOSTILE.values():
        refusing(chat, COMPLETIONS, 400, text)
        answer = ask(chat, "parrot", "hi")
        expect(answer.locator(".notice p").first).to_have_text(text)
        is_harmless(chat, answer)


def test_a_model_s_name_and_description_are_harmless(page: Page, server: Server, asked: list[str]) -> None:
    """Names that the manifest would refuse, too: the page does not trust the manifest with its markup."""
    models = [
        {"id": text, "kind": "chat", "backend": text, "state": text, "description": text} for text in HOSTILE.values()
    ]
    speech = [{**model, "id": f"{model['id']}!", "kind": "speech"} for model in models]
    status = {**server.status(), "models": [{**each, "leases": 0} for each in [*models, *speech]]}
    telling(page, status)
    page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": [*models, *speech]}))
    page.goto(f"{server.url}/#chat")
    page.locator(".model-menu > summary").click()
    expect(page.locator(".menu-name")).to_have_text(list(HOSTILE.values()))
    for box in page.locator(".menu-item input").all()[:4]:
        box.check()
    assert page.evaluate(CHECK) == []
    voices = [{"id": text, "name": text, "language": text, "source": "engine"} for text in HOSTILE.values()]
    page.route("**/v1/audio/voices*", lambda route: route.fulfill(json={"voices": voices}))
    page.goto(f"{server.url}/#speech")
    expect(page.locator("optgroup option")).to_have_count(len(HOSTILE))
    assert page.evaluate(CHECK) == []


def test_what_gets_past_the_sanitizer_is_refused_by_the_policy(chat: Page, complaints: list[str]) -> None:
    with chat.expect_console_message(lambda message: "inline event handler" in message.text):
        refused = chat.evaluate(
            """() => new Promise((resolve) => {
              document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
              const hole = document.createElement('div');
              hole.innerHTML = '<img src="data:," onerror="window.ran=true">';
              document.body.append(hole);
            })"""
        )
    assert refused == "script-src-attr"
    assert not chat.evaluate("window.ran")
    assert "inline event handler" in complaints.pop()


def test_a_link_leads_out_without_telling_where_from(chat: Page) -> None:
    answer = ask(chat, "parrot", "[a](https://x.example/a) [b](mailto:a@x.example) ![c](https://x.example/c.png)")
    expect(answer.get_by_role("link")).to_have_count(3)
    for link in answer.get_by_role("link").all():
        assert link.get_attribute("target") == "_blank"
        assert {"noopener", "noreferrer"} <= set((link.get_attribute("rel") or "").split())
    expect(answer.get_by_role("link", name="Image: c")).to_have_attribute("href", "https://x.example/c.png")
    expect(answer.locator("img")).to_have_count(0)
