"""Whatever a client sends, it gets an answer or an error that says what to mend, and the next client notices nothing.

Requests good and bad go to one running server with real models, several at a time. Short by default; `pytest --long`
runs it for minutes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import DIALOGUES
from tests.server import Server, serving

pytestmark = pytest.mark.fuzz

SHORT, LONG = 60, 5000
"""Numbers of requests that are sent together."""
HANG_SECONDS = 100
"""Nothing takes so long; a request that does is one that hangs."""
CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE = (
    f"/v1/{path}" for path in ("chat/completions", "completions", "tokenize", "detokenize")
)
QUESTIONS = ["What is the capital of France?", "What is the weather in Paris?", "Tell me a joke.", "Count to five."]

texts = st.text(max_size=20) | st.sampled_from(
    ["", " ", "\x00", "\ufffe", "a\u0301" * 9, "👋🏽", "<think>", "</think>", "<|im_end|>", "<tool_call>", "x" * 3000]
)
numbers = st.sampled_from([-1, 0, 1, 2, 999, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 0.5, 1e-300, 1e308, -0.0, 1.0])
numbers |= st.integers(-5, 40) | st.floats(-3, 3)
junk = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.sampled_from(["\ud800", 10**400, float("nan"), float("inf")]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["f", "get_weather", "a.b-c", "a b", "", "x" * 65, "ü"])
types = st.sampled_from(
    ["object", "string", "integer", "number", "array", "boolean", "null", "nope", ["string", "null"]]
)
schemas = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": types,
            "enum": st.lists(junk, max_size=3),
            "const": junk,
            "pattern": st.sampled_from(["a+", "[", "(?=x)", "^.*$", "(a|b){1,100}", "\\p{L}", ""]),
            "minimum": numbers,
            "maximum": numbers,
            "multipleOf": numbers,
            "minLength": numbers,
            "maxLength": numbers,
            "minItems": numbers,
            "maxItems": numbers,
            "format": st.sampled_from(["date-time", "uuid", "nope"]),
            "required": st.lists(texts, max_size=2) | junk,
            "additionalProperties": st.booleans() | junk,
            "$ref": st.sampled_from(["#", "#/$defs/a", "http://127.0.0.1:9/x", "#/nowhere"]),
            "$defs": junk,
        },
    )
    | st.booleans(),
    lambda inner: st.fixed_dictionaries(
        {"type": types},
        optional={
            "properties": st.dictionaries(texts, inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=3),
            "oneOf": st.lists(inner, max_size=3),
            "not": inner,
        },
    ),
    max_leaves=6,
)
functions = st.fixed_dictionaries(
    {"name": names}, optional={"description": texts, "parameters": schemas | junk, "strict": st.booleans() | junk}
)
tools = st.fixed_dictionaries({"type": st.just("function"), "function": functions})
contents = texts | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2) | junk
calls = st.fixed_dictionaries(
    {
        "id": st.just("c"),
        "function": st.fixed_dictionaries({"name": names, "arguments": st.sampled_from(["{}", "{", "[]", ""])}),
    }
)
messages = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer"]), "content": contents}),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={"content": contents, "tool_calls": st.lists(calls, max_size=2) | junk, "reasoning_content": texts},
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": contents, "tool_call_id": st.just("c") | texts}),
    junk,
)
conversations = st.sampled_from([[{"role": "user", "content": question}] for question in DIALOGUES])
conversations |= st.lists(messages, max_size=5)
expressions = st.sampled_from(
    [
        "a",
        "[0-9]{3}",
        "(",
        "a{1000000}",
        "(a*)*b",
        "(?=a)b",
        "\\",
        "/",
        "[^\\x00-\\uffff]",
        "(?i)ja|nein",
        "\\bx",
        ".",
        "^$",
        "a|",
        "\x00",
    ]
)
grammars = st.sampled_from(
    [
        'start: "a"+',
        "start: x",
        "nope",
        'start: "a" start | ""',
        "start: /[/",
        "%ignore",
        "start: <|im_end|>",
        'start: ""',
        "start: /a*/ start",
    ]
)
formats = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "json_object", "json_schema", "x"])}),
    st.builds(lambda schema: {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}, schemas),
)
named = st.builds(lambda name: {"type": "function", "function": {"name": name}}, names)
choices = st.sampled_from(["none", "auto", "required"]) | named
choices |= st.builds(
    lambda tool: {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool]}}, named
)
token_lists = st.lists(st.integers(0, 420), max_size=6) | st.lists(numbers, max_size=2)
biases = st.dictionaries(
    st.sampled_from(["0", "5", "300", "396", "397", "511", "99999", "999999999"]), st.floats(-100, 100), max_size=3
)

shared: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(1, 7),
    "max_tokens": st.integers(1, 30) | st.just(2**62),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1, exclude_min=True),
    "top_k": st.integers(-1, 500) | st.just(2**62),
    "min_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(0, 10, exclude_min=True),
    "logit_bias": biases,
    "seed": st.integers(-(2**63), 2**63),
    "stop": texts | st.lists(texts, max_size=18),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "regex": expressions | texts,
    "grammar": grammars | texts,
    "user": texts,
    "unheard_of": junk,
}
of_chat = {
    **shared,
    "messages": conversations,
    "max_completion_tokens": st.integers(1, 500),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 21),
    "tools": st.lists(tools, max_size=3),
    "tool_choice": choices,
    "parallel_tool_calls": st.booleans(),
    "response_format": formats,
    "reasoning_effort": st.sampled_from(["none", "low", "high", "nope"]),
    "chat_template_kwargs": st.dictionaries(
        st.sampled_from(
            ["enable_thinking", "messages", "tools", "tokenize", "self", "add_generation_prompt", "return_dict"]
        )
        | texts,
        junk,
        max_size=2,
    ),
    "continue_final_message": st.booleans(),
}
of_completions = {
    **shared,
    "prompt": texts | token_lists | st.lists(texts, max_size=4) | st.lists(token_lists, max_size=3),
    "echo": st.booleans(),
    "logprobs": st.integers(0, 6),
    "suffix": texts,
    "best_of": numbers,
}
of_tokenize = {"text": texts, "messages": conversations, "add_special_tokens": st.booleans()}
of_detokenize = {"tokens": token_lists}


@dataclass(frozen=True)
class Ask:
    """One request."""

    path: str
    body: Any
    how: Literal["whole", "stream", "leave"]

    @property
    def encoded(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        body = {**self.body, "stream": True} if self.how != "whole" and isinstance(self.body, dict) else self.body
        return json.dumps(body).replace("Infinity", "1e400").encode()


ENDPOINTS: list[tuple[str, dict[str, st.SearchStrategy[Any]], dict[str, Any]]] = [
    *[(CHAT, of_chat, {"messages": [{"role": "user", "content": question}]}) for question in QUESTIONS],
    *[(COMPLETIONS, of_completions, {"prompt": "Once upon"})] * 3,
    (TOKENIZE, of_tokenize, {}),
    (DETOKENIZE, of_detokenize, {}),
]


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    path, fields, base = draw(st.sampled_from(ENDPOINTS))
    body: Any = {"model": draw(st.sampled_from(["batch", "batch", "batch", "batch", "alone", "echo"])), **base}
    for name in draw(st.lists(st.sampled_from([*fields, "model"]), max_size=6, unique=True)):
        wild = name == "model" or draw(st.integers(0, 9)) == 9
        body[name] = draw(junk if wild and draw(st.booleans()) else fields.get(name, st.just("alone")))
    if draw(st.integers(0, 60)) == 60:
        body = draw(junk | st.binary(max_size=30))
    how = draw(st.sampled_from(["whole", "stream", "leave"])) if path in (CHAT, COMPLETIONS) else "whole"
    return Ask(path, body, how)


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    common = "context_length: 200, max_batch: 6, preload: true, keep_alive: forever, defaults: {temperature: 0}"
    manifest = f"""
chat:
  batch: {{backend: mlx-lm, path: demo, {common}}}
  echo: {{backend: echo}}
  alone: {{backend: mlx-lm, path: {tiny_model}, draft: {tiny_model}, {common}}}
"""
    with serving(tmp_path_factory.mktemp("fuzz"), manifest) as server:
        yield server


def send(server: Server, ask: Ask) -> None:
    """Send it and look at what comes back."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG_SECONDS)) as connection:
        connection.request("POST", ask.path, ask.encoded, {"Content-Type": "application/json"})
        if ask.how == "leave":
            connection.sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                connection.sock.recv(100)
            return
        reply = connection.getresponse()
        content = reply.read()
    if reply.status != 200:
        check_error(ask, reply.status, json.loads(content))
    elif reply.getheader("content-type", "").startswith("text/event-stream"):
        check_stream(ask, content)
    else:
        check_whole(ask, json.loads(content))


def check_error(ask: Ask, status: int, content: Any) -> None:
    assert set(content) == {"error"}
    error = content["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert status in (400, 404), content
    if isinstance(ask.body, dict) and error["code"] != "invalid_json":
        assert error["param"], content


def check_stream(ask: Ask, content: bytes) -> None:
    events = [line.removeprefix(b"data: ") for line in content.split(b"\n\n") if line.startswith(b"data: ")]
    if events[-1] != b"[DONE]":
        check_error(ask, 400, json.loads(events[-1]))
        assert json.loads(events[-1])["error"]["type"] == "invalid_request_error", events[-1]
        return
    chunks = [json.loads(chunk) for chunk in events[:-1]]
    ended = sorted(choice["index"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"])
    assert ended == list(range(answers(ask)))


def check_whole(ask: Ask, content: Any) -> None:
    if ask.path == TOKENIZE:
        assert content["count"] == len(content["tokens"])
    elif ask.path == DETOKENIZE:
        assert isinstance(content["text"], str)
    else:
        assert [choice["index"] for choice in content["choices"]] == list(range(answers(ask)))
        assert all(choice["finish_reason"] for choice in content["choices"])


def answers(ask: Ask) -> int:
    prompt = ask.body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    return prompts * (ask.body.get("n") or 1)


@pytest.mark.timeout(1800)
def test_no_request_does_harm(server: Server, request: pytest.FixtureRequest) -> None:
    client = server.client()

    def plain() -> list[Any]:
        """Check what a client sees that does nothing unusual."""
        question = [{"role": "user", "content": "What is the capital of France?"}]
        return [
            client.chat.completions.create(model=model, messages=question).choices[0].message.content
            for model in ("batch", "alone")
        ]

    def workers() -> list[Any]:
        return [(model["place"]["pid"], model["worker_deaths"]) for model in server.status()["models"]]

    before = plain(), workers()

    @settings(
        max_examples=LONG if request.config.getoption("--long") else SHORT,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, Phase.shrink],
    )
    @given(st.lists(asks(), min_size=1, max_size=4))
    def attack(asks: list[Ask]) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda ask: send(server, ask), asks))
        assert workers() == before[1]

    attack()
    while any(model["leases"] for model in server.status()["models"]):
        pass
    assert (plain(), workers()) == before
    assert not [line for line in server.lines if "Traceback" in line]
