"""A chat template that does not end, on a real server: its request is refused, and everybody else is served."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server, serving

CHAT = "/v1/chat/completions"
FOREVER = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ENDINGS = {
    "never": "{% if 'never' in messages[0].content %}" + FOREVER + "{% endif %}",
    "huge": "{% if 'huge' in messages[0].content %}{{ 'x' * 99999999999 }}{% endif %}",
    "switched": "{% if switch %}" + FOREVER + "{% endif %}",
}


@pytest.fixture(scope="module")
def server(endless_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("templates")
    for name, ending in ENDINGS.items():
        shutil.copytree(endless_model, folder / name)
        template = folder / name / "chat_template.jinja"
        template.write_text(template.read_text() + ending)
    entries = "".join(f"  {name}: {{backend: mlx-lm, path: ./{name}}}\n" for name in ENDINGS)
    with serving(folder, f"chat:\n{entries}") as server:
        yield server


def said(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("model", "hostile"),
    [
        ("never", {"messages": said("never")}),
        ("never", {"messages": said("never" + " long" * 10_000)}),
        ("huge", {"messages": said("huge")}),
        ("switched", {"messages": said("hi"), "chat_template_kwargs": {"switch": True}}),
    ],
)
def test_a_template_that_does_not_end_refuses_its_request_while_other_streams_of_the_model_go_on(
    server: Server, model: str, hostile: dict[str, Any]
) -> None:
    replies = []
    tokens = server.request("POST", "/v1/tokenize", {"model": model, "text": "a", "add_special_tokens": False}).json()
    always = {str(tokens["tokens"][0]): 100}  # a stream with text in every chunk
    with server.client().chat.completions.create(
        model=model, messages=said("hi"), stream=True, logit_bias=always
    ) as stream:
        next(stream)
        asking = threading.Thread(
            target=lambda: replies.append(server.request("POST", CHAT, {"model": model, **hostile}))
        )
        asking.start()
        chunks = 0
        for _ in stream:
            chunks += 1
            if not asking.is_alive():
                break
        asking.join()
    error = replies[0].json()["error"]
    assert (replies[0].status, error["param"]) == (400, "messages")
    assert "template" in error["message"]
    assert model == "huge" or chunks > 10
    assert server.model(model)["worker_deaths"] == 0


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "tools", "conversation", "return_dict", "padding"])
def test_a_request_brings_no_template_and_no_parameter_of_the_library(server: Server, name: str) -> None:
    body = {"model": "never", "messages": said("hi"), "max_tokens": 1, "chat_template_kwargs": {name: FOREVER + "x"}}
    reply = server.request("POST", CHAT, body)
    assert (reply.status, reply.json()["error"]["param"]) == (400, "chat_template_kwargs")
