"""The conversation of a chat."""

from __future__ import annotations

from typing import get_args

import pytest

from localapi.backends.parameters import ChatParameters, Effort
from localapi.cli.chat import EFFORTS
from localapi.cli.conversation import PARAMETERS, CannotSay, Conversation

pytestmark = pytest.mark.everyday


def test_a_question_without_an_answer_is_taken_back_and_can_be_asked_again() -> None:
    talk = Conversation("m", system="be brief")
    talk.ask("one")
    talk.answered("1")
    talk.ask("two")
    talk.answered("")
    assert [message["content"] for message in talk.request()["messages"]] == ["be brief", "one", "1"]
    assert talk.retry() == "two"
    talk.ask("three")
    talk.answered("3")
    assert talk.retry() == "three"
    assert talk.retry() == "one"
    with pytest.raises(CannotSay):
        talk.retry()


def test_parameters_are_sent_as_they_were_set_and_left_out_when_unset() -> None:
    talk = Conversation("m")
    for name, value in {"temperature": "0.2", "stop": '["a", "b"]', "reasoning_effort": "low"}.items():
        talk.set(name, value)
    assert talk.request() == {
        "model": "m", "messages": [], "temperature": 0.2, "stop": ["a", "b"], "reasoning_effort": "low",
    }  # fmt: skip
    talk.set("stop", "")
    assert "stop" not in talk.request()


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "9"), ("max_tokens", "0"), ("seed", "soon"), ("top_p", "NaN"), ("reasoning_effort", "much")],
)
def test_what_the_server_would_refuse_is_refused_at_once(name: str, value: str) -> None:
    talk = Conversation("m", {name: 1})
    with pytest.raises(CannotSay, match=f"{name} .*{value}"):
        talk.set(name, value)
    assert talk.parameters == {name: 1}


def test_what_can_be_set_is_what_the_api_takes() -> None:
    assert set(PARAMETERS) <= set(ChatParameters.model_fields)
    assert get_args(Effort) == EFFORTS
