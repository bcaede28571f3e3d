"""Ollama's endpoints as its official client sees them, on echo and on the demo model."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from localapi.api.ollama.models import OllamaThinking, thinking_of
from localapi.worker.protocol import Capabilities
from tests.server import Server, save, serving, until

MANIFEST = """
server: {{ollama_port: {port}}}
chat:
  echo: {{backend: echo}}
  kept: {{backend: echo, pin: true}}
  demo: {{backend: mlx-lm, path: demo, aliases: [llama], defaults: {{temperature: 0}}}}
embedding: {{vectors: {{backend: echo}}}}
speech: {{voice: {{backend: echo, voices: {{v: {{}}}}}}}}
"""
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FOREVER_YEAR = 2300


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("ollama"), MANIFEST.format(port=port)) as server:
        server.wait_for(f"Ollama's API on port {port}")
        yield server


@pytest.fixture(scope="module")
def client(server: Server, port: int) -> Iterator[ollama.Client]:
    client = ollama.Client(host=f"http://127.0.0.1:{port}", timeout=60)
    yield client
    client.close()


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("name", ["demo", "demo:latest", "llama", "llama:latest"])
def test_an_answer_has_content_counts_and_times(client: ollama.Client, name: str) -> None:
    reply = client.chat(name, messages=user("Count to five."))
    assert (reply.model, reply.message.content, reply.done, reply.done_reason) == ("demo", "1 2 3 4 5", True, "stop")
    assert reply.eval_count
    assert reply.total_duration
    assert reply.eval_duration
    assert reply.total_duration >= reply.eval_duration


def test_a_stream_gives_the_same_answer(client: ollama.Client) -> None:
    parts = list(client.chat("demo", messages=user("Count to five."), stream=True))
    assert "".join(part.message.content or "" for part in parts) == "1 2 3 4 5"
    assert [part.done for part in parts[-2:]] == [False, True]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_is_read(client: ollama.Client, stream: bool) -> None:
    messages: list[Any] = user("What is the weather in Paris?")
    replies: Any = client.chat("demo", messages=messages, tools=[WEATHER], stream=stream)
    calls = [call for part in (replies if stream else [replies]) for call in part.message.tool_calls or ()]
    assert [(call.function.name, call.function.arguments) for call in calls] == [("get_weather", {"city": "Paris"})]
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call.model_dump() for call in calls]},
        {"role": "tool", "tool_name": "get_weather", "content": "Sunny."},
    ]
    assert client.chat("demo", messages=messages, tools=[WEATHER]).message.content


def test_generate_keeps_to_a_schema_a_stop_string_and_a_limit(client: ollama.Client) -> None:
    schema = {
        "type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"],
        "additionalProperties": False,
    }  # fmt: skip
    assert json.loads(client.generate("demo", "Where?", format=schema, think=False).response or "") == {"city": "Paris"}
    assert client.generate("echo", "one two three", options={"stop": ["two"]}).response == "one "
    cut = client.generate("echo", "one two three", options={"num_predict": 1})
    assert (cut.response, cut.done_reason) == ("one", "length")
    assert client.generate("demo", "The capital of France is", raw=True, options={"num_predict": 8}).response


def test_a_model_is_loaded_kept_and_unloaded_on_demand(client: ollama.Client, server: Server) -> None:
    def loaded() -> dict[str, Any]:
        return {str(model.model): model for model in client.ps().models}

    assert client.generate("demo", keep_alive=-1).done_reason == "load"
    assert loaded()["demo"].expires_at.year == FOREVER_YEAR
    client.chat("demo", messages=user("hi"), options={"num_predict": 1}, keep_alive="5m")
    assert loaded()["demo"].expires_at.year < FOREVER_YEAR
    assert loaded()["demo"].context_length == 2048
    assert client.chat("demo", messages=[], keep_alive=0).done_reason == "unload"
    assert "demo" not in loaded()
    client.chat("echo", messages=user("hi"), keep_alive=0)
    until(lambda: "echo" not in loaded())
    client.chat("kept", messages=[], keep_alive=0)
    assert "kept" in loaded()


@pytest.mark.parametrize(
    ("can", "effort", "values", "default"),
    [
        ({"thinking_switch": True}, None, [False, True], True),
        ({"thinking_switch": True}, "none", [False, True], False),
        ({"thinking_switch": True}, "high", [False, True], True),
        ({}, None, [True], True),
        ({"thinking_levels": True}, None, ["low", "medium", "high"], "medium"),
        ({"thinking_levels": True, "thinking_switch": True}, "low", [False, "low", "medium", "high"], "low"),
    ],
)
def test_a_thinking_model_says_what_think_can_be(can: Any, effort: str | None, values: Any, default: Any) -> None:
    defaults = {} if effort is None else {"reasoning_effort": effort}
    assert thinking_of(Capabilities(thinking=True, **can), defaults) == OllamaThinking(values, default)


def test_models_are_listed_and_described(client: ollama.Client, server: Server) -> None:
    models = client.list().models
    assert [model.model for model in models] == ["echo", "kept", "demo", "vectors"]
    assert len({model.digest for model in models}) == 3
    shown = client.show("llama:latest")
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["qwen3.context_length"] == 2048
    assert "messages" in (shown.template or "")
    details = [server.request("POST", "/api/show", {"model": name}).json() for name in ("demo", "echo")]
    assert [each.get("thinking") for each in details] == [{"values": [False, True], "default": True}, None]
    assert client.show("echo").capabilities == ["completion"]
    assert client.show("vectors").capabilities == ["embedding"]


def test_texts_become_vectors(client: ollama.Client) -> None:
    many = client.embed("vectors", ["one", "two", "one"]).embeddings
    assert many[0] == many[2] != many[1]
    assert client.embeddings("vectors:latest", "one").embedding == many[0]
    assert client.embed("vectors", []).embeddings == []


def test_what_changes_models_is_refused_with_what_to_do(client: ollama.Client) -> None:
    for change in (
        lambda: client.pull("llama3.2"),
        lambda: client.push("demo"),
        lambda: client.create("mine", from_="demo"),
        lambda: client.delete("demo"),
        lambda: client.copy("demo", "mine"),
    ):
        with pytest.raises(ollama.ResponseError) as refused:
            change()
        assert refused.value.status_code == 403
        assert "models.yaml" in refused.value.error


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("POST /api/chat", {"model": "nobody", "messages": user("hi")}, 404),
        ("POST /api/chat", {"model": "voice", "messages": user("hi")}, 400),
        ("POST /api/chat", {"messages": user("hi")}, 400),
        ("POST /api/chat", b"[", 400),
        ("POST /api/chat", {"model": "demo", "messages": [{"role": "user", "images": ["AAAA"]}]}, 400),
        ("GET /api/chat", None, 405),
        ("POST /api/show", {}, 400),
        ("POST /api/show", {"name": "nobody"}, 404),
        ("POST /api/embed", {"model": "demo", "input": "x"}, 400),
        ("GET /api/nothing", None, 404),
    ],
)
def test_every_error_has_ollamas_form(server: Server, request_line: str, body: Any, status: int) -> None:
    reply = server.request(*request_line.split(), body)
    assert reply.status == status
    assert reply.json().keys() == {"error"}
    assert reply.json()["error"]


def test_the_root_of_its_port_says_that_it_runs_and_that_of_the_server_is_the_console(
    client: ollama.Client, server: Server
) -> None:
    raw = client._client
    assert raw.get("/").text == "Ollama is running"
    assert raw.head("/").status_code == 200
    assert raw.get("/api/version").json()["version"].count(".") == 2
    assert raw.get("/v1/models").json()["object"] == "list"
    assert raw.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert raw.get("/api/tags", headers={"Origin": "https://evil.example"}).status_code == 403
    assert server.request("GET", "/").headers["content-type"].startswith("text/html")


def test_an_edit_moves_and_closes_its_port_and_a_port_in_use_is_a_warning(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("port")
    first = free_port()
    with serving(folder, "chat: {echo: {backend: echo}}") as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = taken.getsockname()[1]

        def edit(port: object) -> None:
            save(folder / "models.yaml", f"server: {{ollama_port: {port}}}\nchat: {{echo: {{backend: echo}}}}\n")
            server.reload()

        edit(first)
        server.wait_for(f"Ollama's API on port {first}")
        with ollama.Client(host=f"http://127.0.0.1:{first}") as client:
            assert client.generate("echo", "hi").response == "hi"
        edit(used)
        until(lambda: any(str(used) in warning for warning in server.status()["warnings"]))
        with pytest.raises(ConnectionError), ollama.Client(host=f"http://127.0.0.1:{first}") as client:
            client.list()
        edit("null")
        until(lambda: not server.status()["warnings"])
