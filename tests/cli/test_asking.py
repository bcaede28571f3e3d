"""Defaults of questions on the command line, and its summary of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localapi.cli.asking import Answer, first_chat_model, in_words
from localapi.client import Server as Client
from localapi.runtime.progress import Progress
from tests.server import serving


@pytest.mark.parametrize(
    ("tokens", "seconds", "shown"),
    [(6, 0.001, False), (6, 5, False), (500, 0.05, False), (20, 0.2, True), (500, 10, True)],
)
def test_a_speed_is_shown_only_of_an_answer_that_is_long_enough(tokens: int, seconds: float, shown: bool) -> None:
    answer = Answer(usage={"completion_tokens": tokens}, writing_seconds=seconds)
    assert (answer.tokens_per_second is not None) == shown


@pytest.mark.parametrize(
    ("progress", "facts"),
    [
        (Progress("waiting", "m"), ("m",)),
        (Progress("queued", "m", position=3), ("m", "position 3")),
        (Progress("memory", "m", position=1, done=2**30, total=2**31), ("m", "memory", "1.00 GB", "2.00 GB")),
        (Progress("loading", "m"), ("loading m",)),
        (Progress("loading", "m", step="downloading", done=1, total=4), ("m", "downloading", "25 %")),
        (Progress("prompt", "m", done=0, total=2048), ("prompt", "0 of 2048")),
    ],
)
def test_what_a_request_is_waiting_for_is_put_into_words(progress: Progress, facts: tuple[str, ...]) -> None:
    words = in_words(json.loads(json.dumps({"progress": progress.facts()})))
    assert all(fact in words for fact in facts), words
    assert "None" not in words


def test_a_comment_of_a_later_server_is_no_note() -> None:
    assert in_words({"weather": "fine"}) == ""


def test_a_loaded_model_is_asked_before_the_demo_and_the_demo_before_others(tmp_path: Path) -> None:
    manifest = "chat: {a: {backend: echo}, demo: {backend: echo}, z: {backend: echo}}"
    with serving(tmp_path, manifest) as server:
        client = Client(server.url)
        assert first_chat_model(client) == "demo"
        server.request("POST", "/admin/models/z/load")
        assert first_chat_model(client) == "z"
