"""`localapi chat` on a terminal, as a person uses it, with echo and with a real model."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server, save, serving
from tests.terminal import CTRL_C, CTRL_D, ENTER, UP, Terminal, terminal

STORY = "Tell me a story."
BEGINNING = "Once upon a time"
WRITING = rf"{BEGINNING}|{re.escape('<|im_end|>')}"
"""Some part of an endless answer, whose beginning soon leaves the screen."""
HOSTILE = {
    "the title of the window": "\x1b]0;owned\x07",
    "the clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "a link": "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "the cursor": "\x1b[2J\x1b[H",
    "colours in one byte": "\x9b31m",
    "a device control string": "\x1bP+q544e\x1b\\",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> Iterator[Server]:
    endless = {"backend": "mlx-lm", "path": str(endless_model), "defaults": {"temperature": 0}}
    manifest = {
        "chat": {
            "echo": {"backend": "echo"},
            "demo": {"backend": "mlx-lm", "path": "demo", "defaults": {"temperature": 0}},
            "endless": endless,
            "single": {**endless, "max_concurrent": 1},
        },
        "speech": {"tone": {"backend": "echo"}},
    }
    with serving(tmp_path_factory.mktemp("chat"), json.dumps(manifest)) as server:
        yield server


@pytest.fixture
def chat(server: Server, tmp_path: Path) -> Iterator[Terminal]:
    """A chat with echo, whose prompt is there."""
    with chatting(server, tmp_path, "echo") as opened:
        yield opened


def chatting(server: Server, folder: Path, *arguments: str) -> AbstractContextManager[Terminal]:
    env = {"PORT": str(server.port), "XDG_STATE_HOME": str(folder / "state"), "HOME": str(folder)}
    return terminal(folder, "chat", *arguments, env=env)


def ready(chat: Terminal, *, times: int = 1) -> None:
    chat.wait_for(r"> ask something, or /help", times=times)


def until_idle(server: Server, name: str) -> None:
    while server.model(name)["leases"]:
        pass  # the time limit of the test is the bound


def test_an_answer_comes_as_markdown_with_its_figures(chat: Terminal) -> None:
    ready(chat)
    chat.paste("## Title\n\nsome **bold** and `code`\n\n```python\nx = 1\n```\n\n1. one\n2. two\n\n<b>as it is</b>")
    chat.type(ENTER)
    chat.wait_for(r"\d+\.\d\d s to the first token · .*\d+ tokens")
    shown = chat.text[chat.text.rindex("as it is</b>\n", 0, chat.text.rindex("as it is")) :]
    lines = [line.strip() for line in shown.splitlines()]
    assert "Title" in lines
    assert "some bold and code" in lines
    assert "x = 1" in lines
    assert "1 one" in lines
    assert "<b>as it is</b>" in lines


def test_a_stream_arrives_in_parts_and_ctrl_c_stops_the_model_and_not_the_chat(server: Server, tmp_path: Path) -> None:
    with chatting(server, tmp_path, "endless") as chat:
        ready(chat)
        chat.enter(STORY)
        chat.wait_for(WRITING)
        assert server.model("endless")["leases"] == 1  # it is still writing what is on the screen already
        chat.type(CTRL_C)
        chat.wait_for("stopped · ")
        until_idle(server, "endless")
        ready(chat)
        chat.enter("/save said.json")
        chat.wait_for("written to said.json")
        said = json.loads((tmp_path / "said.json").read_text())["messages"]
        assert [message["role"] for message in said] == ["user", "assistant"]
        assert said[1]["content"].startswith(BEGINNING)  # what came stays in the conversation
        ready(chat)
        chat.type(CTRL_D)
        assert chat.end() == 0


def test_what_the_model_thinks_is_dim(server: Server, tmp_path: Path) -> None:
    with chatting(server, tmp_path, "demo") as chat:
        ready(chat)
        chat.enter("Think about two plus two.")
        chat.wait_for(r"\nTwo and two make four\.\n\nFour\.\n.*tokens, 10 of them reasoning")
    assert b"\x1b[2;3mTwo and two" in chat.received


def test_what_an_answer_waits_for_is_told(server: Server, tmp_path: Path) -> None:
    question: Any = [{"role": "user", "content": STORY}]
    running = server.client().chat.completions.create(model="single", messages=question, stream=True)
    next(iter(running))
    with chatting(server, tmp_path, "single", "--max-tokens", "4") as chat:
        ready(chat)
        chat.enter(STORY)
        chat.wait_for("queued for single: position 1")
        running.close()
        chat.wait_for("to the first token.* 4 tokens · cut off")
        assert "position 1" not in chat.text


def test_ctrl_c_at_the_prompt_throws_the_line_away_and_then_leaves(chat: Terminal) -> None:
    ready(chat)
    chat.type("a line that is not sent")
    chat.wait_for("not sent")
    chat.type(CTRL_C)
    ready(chat)
    chat.type(CTRL_C)
    assert chat.end() == 0
    assert "to the first token" not in chat.text


def test_control_characters_of_an_answer_are_shown_and_never_sent(chat: Terminal) -> None:
    for number, sequence in enumerate(HOSTILE.values(), 1):
        ready(chat)
        chat.paste(f"begin {sequence} `{sequence}` end")
        chat.type(ENTER)
        chat.wait_for("to the first token", times=number)
        answer = chat.text[: chat.text.rindex("s to the first token")].rpartition("begin ")[2]
        assert any(picture in answer for picture in ("␛", "<U+009B>"))
    received = chat.received.decode()
    assert [what for what, sequence in HOSTILE.items() if sequence in received] == []
    assert "owned\x07" not in received


def test_a_lone_answer_on_a_terminal_is_as_harmless(server: Server, tmp_path: Path) -> None:
    told = " ".join([*HOSTILE.values(), "honest\rhidden &#27;[31m \u202eleft"])
    with chatting(server, tmp_path, "echo", told) as chat:
        assert chat.end() == 0
        received = chat.received.decode()
    assert [what for what, sequence in HOSTILE.items() if sequence in received] == []
    assert "\x1b" not in received
    assert "honest␍hidden &#27;[31m <U+202E>left" in received


def test_lines_are_kept_for_the_next_chat_where_nobody_else_reads_them(server: Server, tmp_path: Path) -> None:
    with chatting(server, tmp_path, "echo") as chat:
        ready(chat)
        chat.enter("remember me")
        chat.wait_for("to the first token")
        ready(chat)
        chat.enter("/quit")
        assert chat.end() == 0
    kept = tmp_path / "state" / "localapi" / "chat_history"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    kept.chmod(0o644)
    with chatting(server, tmp_path, "echo") as chat:
        ready(chat)
        chat.type(UP)
        chat.wait_for("> /quit")
        chat.type(UP)
        chat.wait_for("> remember me")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_without_history_no_file_is_read_or_written(server: Server, tmp_path: Path) -> None:
    with chatting(server, tmp_path, "echo", "--no-history") as chat:
        ready(chat)
        chat.enter("forget me")
        chat.wait_for("to the first token")
    assert not (tmp_path / "state").exists()


def test_several_lines_are_one_message(chat: Terminal) -> None:
    ready(chat)
    chat.enter("one\\")
    chat.type("two\x1b\rthree\r")
    chat.wait_for(r"\none\ntwo\nthree\n")
    chat.wait_for("3 tokens")


def test_the_commands_do_what_the_help_says(chat: Terminal, tmp_path: Path) -> None:
    ready(chat)
    for line, expected in {
        "/help": "/retry +ask the last question again",
        "/nope": "there is no /nope",
        "/set temperature 0.2": "\ntemperature 0.2",
        "/set colour red": "there is no parameter 'colour'; available: temperature",
        "/system Be brief.": "\nsystem prompt set",
        "/retry": "nothing has been asked yet",
        "hello there": r"\nhello there\n.*2 tokens",
        "/save talk.md": "written to talk.md",
        "//slashed": r"\n/slashed\n",
        "/clear": "\nforgotten",
        "/model tone": "tone is a speech model; chat models are: echo, demo, endless, single",
        "/model nobody": "The model 'nobody' does not exist",
        "/model": r"\n\* echo\n  demo\n  endless\n  single",
    }.items():
        chat.enter(line)
        chat.wait_for(expected)
    assert (tmp_path / "talk.md").read_text() == (
        "## system\n\nBe brief.\n\n## user\n\nhello there\n\n## assistant\n\nhello there\n"
    )
    (tmp_path / "mine.md").write_text("mine")
    chat.enter("/save mine.md")
    chat.wait_for("mine.md already exists")
    assert (tmp_path / "mine.md").read_text() == "mine"


def test_a_value_that_the_server_would_refuse_is_refused_at_once(chat: Terminal) -> None:
    ready(chat)
    chat.enter("/set temperature hot")
    chat.wait_for(r'temperature should be a valid number; found "hot"')
    chat.enter("hello")
    chat.wait_for(r"> hello\nhello\n")


def test_a_question_that_failed_can_be_asked_again(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    manifest = tmp_path / "served" / "models.yaml"
    with (
        serving(manifest.parent, "chat: {bird: {backend: echo}}") as server,
        chatting(server, tmp_path, "bird") as chat,
    ):
        ready(chat)
        save(manifest, "chat: {cat: {backend: echo}}")
        server.reload()
        chat.enter("hello")
        chat.wait_for(r"The model 'bird' does not exist(.|\n)*\n+failed; /retry asks again")
        save(manifest, "chat: {bird: {backend: echo}}")
        server.reload()
        chat.enter("/retry")
        chat.wait_for(r"> hello\nhello\n")


def test_what_is_typed_while_an_answer_comes_does_not_appear_in_it(server: Server, tmp_path: Path) -> None:
    with chatting(server, tmp_path, "endless") as chat:
        ready(chat)
        chat.enter(STORY)
        chat.wait_for(WRITING)
        chat.type("early")
        chat.type(CTRL_C)
        chat.wait_for("stopped")
        assert "early" not in chat.text[: chat.text.index("stopped")]
