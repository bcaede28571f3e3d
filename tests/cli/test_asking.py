"""What the command line asks where nothing is named, and what it says of an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.cli.asking import Answer, first_chat_model
from localapi.client import Server as Client
from tests.server import serving


@pytest.mark.parametrize(
    ("tokens", "seconds", "shown"),
    [(6, 0.001, False), (6, 5, False), (500, 0.05, False), (20, 0.2, True), (500, 10, True)],
)
def test_a_speed_is_shown_only_of_an_answer_that_is_long_enough(tokens: int, seconds: float, shown: bool) -> None:
    answer = Answer(usage={"completion_tokens": tokens}, writing_seconds=seconds)
    assert (answer.tokens_per_second is not None) == shown


def test_a_loaded_model_is_asked_before_the_demo_and_the_demo_before_others(tmp_path: Path) -> None:
    manifest = "chat: {a: {backend: echo}, demo: {backend: echo}, z: {backend: echo}}"
    with serving(tmp_path, manifest) as server:
        client = Client(server.url)
        assert first_chat_model(client) == "demo"
        server.request("POST", "/admin/models/z/load")
        assert first_chat_model(client) == "z"
