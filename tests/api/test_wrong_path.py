"""The nearest path to one that is not there."""

from __future__ import annotations

import pytest

from localapi.api.openapi import operations
from localapi.api.wrong_path import nearest, no_such_path

pytestmark = pytest.mark.everyday

CHAT, MODELS, SPEECH = "/v1/chat/completions", "/v1/models", "/v1/audio/speech"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/chat/completions", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/openai/v1/chat/completions", CHAT),
        ("/v1/chat/completion", CHAT),
        ("/v1/chat/completions/x", CHAT),
        ("/V1/Chat/Completions", CHAT),
        ("/v1/chat", CHAT),
        ("/api/v1/chat/completions", CHAT),
        ("/api/chats", "/api/chat"),
        ("/completions", "/v1/completions"),
        ("/v1", MODELS),
        ("/models", MODELS),
        ("/v1/model", MODELS),
        ("/audio/speech", SPEECH),
        ("/v1/speech", SPEECH),
        ("/v1/voices", "/v1/audio/voices"),
        ("/tokenize", "/v1/tokenize"),
        ("/healthz", "/health"),
        ("/readyz", "/health/ready"),
        ("/v1/status", "/status"),
        ("/metric", "/metrics"),
        ("/openapi.yaml", "/openapi.json"),
    ],
)
def test_a_path_that_is_nearly_right_is_led_to_the_right_one(asked: str, meant: str) -> None:
    assert nearest(asked, {path for _, path in operations()}) == meant


@pytest.mark.parametrize("asked", ["/", "", "/tts", "/v2/x", "/admin", "/admin/models/x/lod", "/é", "/a" * 99])
def test_a_path_that_is_like_none_is_led_to_the_api_and_never_to_what_administers_the_server(asked: str) -> None:
    assert nearest(asked, {path for _, path in operations()}).startswith("/v1/")


def test_a_client_that_has_found_its_api_is_not_told_of_another() -> None:
    message = no_such_path("POST", "/v1/messages/batches", operations())
    assert "/v1/messages." in message
    assert "/v1/chat" not in message


def test_the_message_is_one_short_sentence_however_long_the_path_is() -> None:
    message = no_such_path("GET", "/" + "x" * 50_000, operations())
    assert len(message) < 400
    assert "/v1" in message
    assert "/admin" not in message
