"""Invalid requests get OpenAI's error object, and the server goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import Server, serving

OK: list[Any] = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("nonsense"), "{chat: {m: {backend: echo}}, speech: {s: {backend: echo}}}"
    ) as server:
        yield server


@pytest.fixture(autouse=True)
def still_serves(server: Server) -> Iterator[None]:
    yield
    assert server.request("POST", CHAT, {"model": "m", "messages": OK}).status == 200


def assert_error(reply: Any, status: int, param: str | None, words: str) -> None:
    error = reply.json()["error"]
    assert (reply.status, error["param"]) == (status, param), error
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]
    assert reply.headers["content-type"] == "application/json"


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no body"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'"text"', 'found the string "text"'),
        (b"[]", "found the array"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model":"m"' + b"".join(b',"k%d":1' % number for number in range(1000)) + b"}", "1001 fields"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', "not valid JSON"),
    ],
)
def test_a_body_that_is_no_json_object(server: Server, body: bytes, words: str) -> None:
    assert_error(server.request("POST", CHAT, body), 400, None, words)


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"model": None}, "model", "Missing required"),
        ({"model": 5}, "model", "found the number 5"),
        ({"messages": None}, "messages", "Missing required"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": "hi"}, "messages", 'found the string "hi"'),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "Missing required"),
        ({"messages": [{"content": "x"}]}, "messages[0]", "role"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0]", "king"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "found the number 5"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages[0].content[0].type",
            "image",
        ),
        ({"temperature": "hot"}, "temperature", 'found the string "hot"'),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": True}, "temperature", "found true"),
        ({"top_p": -0.1}, "top_p", "greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 1.5}, "max_tokens", "found the number 1.5"),
        ({"max_completion_tokens": -2}, "max_completion_tokens", "greater than or equal to 1"),
        ({"stop": 5}, "stop", "found the number 5"),
        ({"stop": [5]}, "stop[0]", "found the number 5"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"seed": 2**80}, "seed", "less than or equal"),
        ({"seed": "x"}, "seed", 'found the string "x"'),
        ({"stream": "yes"}, "stream", 'found the string "yes"'),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "found the number 1"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": True}, "n", "found true"),
        ({"top_k": 1.5}, "top_k", "found the number 1.5"),
        ({"min_p": 2}, "min_p", "less than or equal to 1"),
        ({"presence_penalty": 3}, "presence_penalty", "less than or equal to 2"),
        ({"frequency_penalty": "x"}, "frequency_penalty", 'found the string "x"'),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "pattern"),
        ({"logit_bias": {"5": 200}}, "logit_bias.5", "less than or equal to 100"),
        ({"logprobs": 5}, "logprobs", "found the number 5"),
        ({"top_logprobs": 5}, "top_logprobs", "needs 'logprobs'"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "Missing required"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "the tools are: none"),
        ({"response_format": {"type": "xml"}}, "response_format", "xml"),
        ({"response_format": {"type": "json_object"}, "regex": "a"}, "response_format", "Give one of"),
        ({"reasoning_effort": "maximal"}, "reasoning_effort", "maximal"),
        ({"chat_template_kwargs": {"a": [2**64]}}, "chat_template_kwargs", "cannot be sent"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"maximum": 2**64}}}]},
            "tools[0].function.parameters",
            "cannot be sent",
        ),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs", "a b"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs", "reserved"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs", "reserved"),
        ({"chat_template_kwargs": {"return_offsets": True}}, "chat_template_kwargs", "reserved"),
        ({"continue_final_message": True}, "continue_final_message", "found user"),
        (
            {"continue_final_message": True, "messages": [*OK, {"role": "assistant", "tool_calls": [CALL]}]},
            "continue_final_message",
            "tool_calls",
        ),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages[0].tool_call_id", "'x'"),
        ({"audio": {"voice": "alloy"}}, "audio", "not supported"),
        ({"modalities": ["audio"]}, "modalities", "not supported"),
        ({"functions": [{"name": "f"}]}, "functions", "not supported"),
        ({"web_search_options": {}}, "web_search_options", "not supported"),
    ],
)
def test_a_field_that_is_wrong_is_named(server: Server, change: dict[str, Any], param: str, words: str) -> None:
    reply = server.request("POST", CHAT, {"model": "m", "messages": OK, **change})
    assert_error(reply, 400, param, words)


@pytest.mark.parametrize(
    "harmless",
    [
        {"n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "tools": []},
        {"response_format": {"type": "text"}, "tool_choice": "auto", "parallel_tool_calls": True, "store": False},
        {"max_tokens": -1, "max_completion_tokens": -1, "stop": "", "top_p": 0},
        {"stop": ["", ""]},
        {"stop": ["no such text", *[""] * 20]},
        {"max_tokens": 2**65, "max_completion_tokens": 2**65, "top_k": 2**65},
        {"user": "u", "metadata": {"a": "b"}, "service_tier": "auto", "modalities": ["text"], "prompt_cache_key": "k"},
    ],
)
def test_values_that_ask_for_nothing_special_are_taken(server: Server, harmless: dict[str, Any]) -> None:
    assert server.request("POST", CHAT, {"model": "m", "messages": OK, **harmless}).status == 200


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"verbosity": "low", "service_tier": "flex"}, "service_tier, verbosity"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"verbosity": "medium", "service_tier": "auto"}, None),
        ({"stream_options": {"include_usage": True, "frob": 1}}, "stream_options.frob"),
        ({"response_format": {"type": "text", "frob": 1}}, "response_format.frob"),
        ({"tools": [{"type": "function", "frob": 1, "function": {"name": "f", "x": 1}}]},
         "tools[0].frob, tools[0].function.x"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": 1}}}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]}]},
         "messages[0].content[0].cache_control"),
        ({"messages": [{**message, "frob": 1} for message in OK * 3]}, "messages[0].frob"),
        ({"messages": [*OK, {"role": "assistant", "content": "a", "annotations": [], "audio": None}]}, None),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_named_also_inside_of_fields(
    server: Server, fields: dict[str, Any], named: str | None
) -> None:
    reply = server.request("POST", CHAT, {"model": "m", "messages": OK, **fields})
    assert (reply.status, reply.headers.get("x-ignored-params")) == (200, named)


def test_an_unknown_field_of_any_name_is_told_in_a_header(server: Server) -> None:
    body = {"model": "m", "messages": OK, "a\x15\r\nX-Evil: 1": 1, "é\x00\x7f": 2, "": 3}
    reply = server.request("POST", CHAT, body)
    assert (reply.status, reply.headers["x-ignored-params"]) == (200, ", a???X-Evil: 1, ???")
    assert "x-evil" not in reply.headers


def test_an_unknown_model_lists_those_that_exist(server: Server) -> None:
    reply = server.request("POST", CHAT, {"model": "nope", "messages": OK})
    assert_error(reply, 404, "model", "these chat models: m.")
    assert reply.json()["error"]["code"] == "model_not_found"
    assert_error(server.request("GET", "/v1/models/nope"), 404, "model", "these models: m, s.")


def test_a_speech_model_at_the_chat_endpoint_is_refused_with_the_models_that_fit(server: Server) -> None:
    reply = server.request("POST", CHAT, {"model": "s", "messages": OK})
    assert_error(reply, 400, "model", "'s' is a speech model; this endpoint serves chat models: m.")
    assert reply.json()["error"]["code"] == "wrong_endpoint"


@pytest.mark.parametrize(
    ("method", "path", "words", "allowed"),
    [
        ("GET", CHAT, "use POST", {"POST"}),
        ("DELETE", "/v1/models", "use GET", {"GET", "HEAD"}),
        ("PUT", "/v1/models/m", "use GET", {"GET", "HEAD"}),
        ("PATCH", "/v1/audio/speech/", "use POST", {"POST"}),
        ("POST", "/status/events", "use GET", {"GET", "HEAD"}),
        ("GET", "/admin/models/m/load", "use POST", {"POST"}),
        ("TRACE", "/", "use GET", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    server: Server, method: str, path: str, words: str, allowed: set[str]
) -> None:
    reply = server.request(method, path)
    assert_error(reply, 405, None, words)
    assert set(reply.headers["allow"].split(", ")) - {"OPTIONS"} == allowed
    assert server.request("OPTIONS", path).headers["allow"].split(", ") != []


def test_head_of_what_takes_post_is_405_without_a_body(server: Server) -> None:
    reply = server.request("HEAD", CHAT)
    assert (reply.status, reply.body) == (405, b"")
    assert "POST" in reply.headers["allow"]


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/v2/anything", "/v1/chat/completions"),
        ("GET", "/v1", "/v1/models"),
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/audio/speach", "/v1/audio/speech"),
        ("POST", "/admin", "/v1/"),
        ("OPTIONS", "*", "/v1/"),
    ],
)
def test_a_wrong_path_names_the_nearest_and_not_those_of_administration(
    server: Server, method: str, path: str, words: str
) -> None:
    reply = server.request(method, path)
    assert_error(reply, 404, None, words)
    assert "/admin/" not in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/m", None),
        ("POST", CHAT, {"model": "m", "messages": OK}),
        ("POST", "/v1/completions", {"model": "m", "prompt": "hi"}),
        ("POST", "/v1/audio/speech", {"model": "s", "input": "hi"}),
        ("GET", "/v1/audio/voices", None),
        ("POST", "/v1/tokenize", {"model": "m", "text": "hi"}),
        ("GET", "/health", None),
        ("GET", "/health/ready", None),
        ("HEAD", "/health", None),
        ("GET", "/status", None),
        ("GET", "/metrics", None),
        ("GET", "/openapi.json", None),
        ("POST", "/admin/models/m/load", None),
    ],
)
def test_a_slash_at_the_end_of_a_path_changes_nothing(server: Server, method: str, path: str, body: Any) -> None:
    plain, slashed = (server.request(method, each, body) for each in (path, f"{path}/"))
    assert (plain.status, slashed.status) == (200, 200)
    assert slashed.headers["content-type"] == plain.headers["content-type"]


def test_a_body_of_20_mb_is_413(server: Server) -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "' + b"x" * 20_000_000 + b'"}]}'
    reply = server.request("POST", CHAT, body)
    assert_error(reply, 413, None, "larger than 16 MiB")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_are_refused(server: Server, headers: dict[str, str]) -> None:
    assert_error(server.request("POST", CHAT, {"model": "m", "messages": OK}, headers), 403, None, "")
    assert_error(server.request("GET", "/v1/models", headers=headers), 403, None, "")


@pytest.mark.parametrize("headers", [{"Host": "localhost:1"}, {"Origin": "http://localhost:3000"}, {"Host": "[::1]"}])
def test_this_machine_is_served(server: Server, headers: dict[str, str]) -> None:
    assert server.request("GET", "/v1/models", headers=headers).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: nan\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_closed(server: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


def test_no_failure_of_our_own_was_logged(server: Server) -> None:
    assert not [line for line in server.lines if "Traceback" in line or "error:" in line]
