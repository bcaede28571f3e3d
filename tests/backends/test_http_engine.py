"""The engine over HTTP, against upstreams that do what servers out there do: well, badly, or not at all."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
from array import array
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from localapi.backends import http_engine
from localapi.backends.engine import via
from localapi.backends.http_engine import HttpEngine, probe_pause
from localapi.backends.token_rate import AnswerRate
from localapi.backends.upstream import Sought, Upstream
from localapi.errors import (
    ApiError,
    ContextLengthExceeded,
    InvalidRequest,
    LoadFailed,
    ModelBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from localapi.worker.protocol import (
    Addition,
    Awaiting,
    Chat,
    Complete,
    Delta,
    Detokenize,
    DetokenizedText,
    Embed,
    Embedded,
    Ended,
    Event,
    Finished,
    Forward,
    ForwardedData,
    ForwardedHead,
    FunctionTool,
    ImagePart,
    JsonObject,
    Message,
    Ranked,
    Rerank,
    Sampling,
    Sound,
    Speak,
    TextPart,
    Tokenize,
    TokenizedText,
    ToolArguments,
    ToolStart,
)
from tests.raw_upstream import Connection, Handler, RawUpstream, raw_upstream

pytestmark = pytest.mark.everyday

KEY = "sk-do-not-show-me"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ids = itertools.count(1)


def chunk(finish: str | None = None, usage: dict[str, Any] | None = None, **delta: Any) -> dict[str, Any]:
    reply: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return reply if usage is None else {**reply, "usage": usage}


def chat(**original: Any) -> Chat:
    """Return a request with the client's body, to be forwarded."""
    body = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **original}
    return Chat(id=next(ids), messages=[], original=body)


@asynccontextmanager
async def engine_at(upstream: RawUpstream, model: str | None = None, **options: Any) -> AsyncIterator[HttpEngine]:
    engine = HttpEngine("cloud", Upstream(url=upstream.url, **options), Sought(model))
    try:
        await engine.connect()
        yield engine
    finally:
        await engine.close()


async def answer(engine: HttpEngine, request: Any) -> list[Event]:
    async with aclosing(engine.answer(request)) as events:
        return [event async for event in events]


async def answered(handler: Handler, request: Any, **options: Any) -> list[Event]:
    async with raw_upstream(handler) as upstream, engine_at(upstream, **options) as engine:
        return await answer(engine, request)


async def failed(handler: Handler, request: Any, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await answered(handler, request, **options)
    assert KEY not in raised.value.message
    return raised.value


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and not event.reasoning)


async def test_a_forwarded_body_is_what_the_client_wrote_with_another_model() -> None:
    async def handler(connection: Connection) -> None:
        await connection.events(chunk(content="Hi"), chunk("stop", USAGE))

    async with raw_upstream(handler) as upstream, engine_at(upstream, key=KEY, headers={"X-Team": "a"}) as engine:
        request = chat(zap={"deep": [1, None]}, user="me")
        events = await answer(engine, request)
        sent = upstream.asked[0]
    assert request.original is not None
    assert sent.json == {**request.original, "model": "big", "stream_options": {"include_usage": True}}
    assert (sent.headers["authorization"], sent.headers["x-team"]) == (f"Bearer {KEY}", "a")
    assert events == [
        Delta(request.id, "Hi"),
        Ended(request.id, 0, "stop"),
        Finished(request.id, 3, 2, reported=USAGE),
    ]


async def test_what_another_dialect_asks_is_said_in_openais_words_and_nothing_more() -> None:
    async def handler(connection: Connection) -> None:
        await connection.events(chunk(content="Hi"), chunk("stop"))

    parts = [TextPart("Look"), ImagePart("data:image/png;base64,AA==")]
    request = Chat(
        id=1,
        messages=[Message("user", parts)],
        tools=[FunctionTool("f", parameters={"type": "object"})],
        tool_choice="required",
        tool_name="f",
        sampling=Sampling(temperature=0.5),
        form=JsonObject(),
    )
    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        events = await answer(engine, request)
        assert upstream.asked[0].json == {
            "model": "big",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                    ],
                }
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "temperature": 0.5,
            "response_format": {"type": "json_object"},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    assert events[-1] == Finished(1, 0, 0, counted=False)  # nothing is estimated


async def test_everything_in_a_stream_comes_through() -> None:
    logprobs = {"content": [{"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": []}]}
    chunks = [
        {"system_fingerprint": "fp", **chunk(role="assistant", content="")},
        {"system_fingerprint": "fp", **chunk(reasoning="Hm")},
        {"choices": [{"index": 1, "delta": {"content": "H"}, "logprobs": logprobs, "finish_reason": None}]},
        chunk(refusal="No"),
        chunk(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        chunk(annotations=[{"url": "x"}]),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls", "stop_reason": 7}]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "content_filter"}]},
        {"choices": [], "usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 2}, "cost": 0.1}},
    ]

    async def handler(connection: Connection) -> None:
        await connection.events(*chunks)

    request = chat(n=2)
    request.n = 2
    events = await answered(handler, request)
    at = request.id
    heard = events.pop(2)
    assert isinstance(heard, Delta)
    assert (heard.choice, heard.text, [token.logprob for token in heard.logprobs]) == (1, "H", [-0.5])
    assert events == [
        Addition(at, 0, "reply", {"system_fingerprint": "fp"}),
        Delta(at, "Hm", reasoning=True),
        Delta(at, "No", refusal=True),
        ToolStart(at, 0, 0, "a", "f"),
        ToolArguments(at, 0, 0, "{}"),
        Addition(at, 0, "message", {"annotations": [{"url": "x"}]}),
        Addition(at, 0, "choice", {"stop_reason": 7}),
        Ended(at, 0, "tool_calls"),
        Ended(at, 1, "content_filter"),
        Finished(at, 3, 2, cached_tokens=2, reported=chunks[-1]["usage"]),  # type: ignore[arg-type]
    ]


CALLS = {
    "no index": [
        [{"id": "a", "function": {"name": "f", "arguments": "{}"}}],
        [{"id": "b", "function": {"name": "g", "arguments": "[]"}}],
    ],
    "index 0 for all": [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}],
        [{"index": 0, "id": "b", "function": {"name": "g", "arguments": "[]"}}],
    ],
    "id and name again and again": [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}],
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}}],
        [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "[]"}}],
    ],
    "an object as arguments": [
        [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {}}}],
        [{"index": 1, "id": "b", "function": {"name": "g", "arguments": []}}],
    ],
}


@pytest.mark.parametrize("name", CALLS)
async def test_calls_are_told_apart_however_a_server_numbers_them(name: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.events(*(chunk(tool_calls=calls) for calls in CALLS[name]), chunk("tool_calls"))

    events = await answered(handler, chat())
    starts = [(event.index, event.call_id, event.name) for event in events if isinstance(event, ToolStart)]
    assert starts == [(0, "a", "f"), (1, "b", "g")]
    arguments = ["", ""]
    for event in events:
        if isinstance(event, ToolArguments):
            arguments[event.index] += event.text
    assert arguments == ["{}", "[]"]


WHOLE = {
    "id": "x",
    "system_fingerprint": "fp",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_in_json_is_read_whether_or_not_a_stream_was_asked_for(*, stream: bool) -> None:
    async def handler(connection: Connection) -> None:
        await connection.reply(200, gzip.compress(json.dumps(WHOLE).encode()), content_encoding="gzip")

    events = await answered(handler, chat(stream=stream))
    assert text_of(events) == "Hi"
    assert isinstance(events[-1], Finished)
    assert events[-1].completion_tokens == 2


async def test_progress_of_another_localapi_keeps_a_stream_alive_and_is_no_answer() -> None:
    async def handler(connection: Connection) -> None:
        progress = b': {"progress": {"state": "prompt", "model": "big", "done": 5, "total": 9}}\n\n'
        await connection.events(b": ping\n\n", progress, chunk(content="Hi"), chunk("stop"))

    events = await answered(handler, chat())
    assert [type(event).__name__ for event in events] == ["Prefill", "Delta", "Ended", "Finished"]


async def test_a_stream_may_end_without_a_mark_if_its_answer_is_complete() -> None:
    async def handler(connection: Connection) -> None:
        await connection.events(chunk(content="Hi"), chunk("stop"), end=b"")

    assert text_of(await answered(handler, chat())) == "Hi"


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (["", "", "length"], "length"),  # "" says nothing yet, as with LMDeploy
        ([None, None, "MAX_TOKENS"], "length"),
        ([None, None, "model_length"], "length"),  # Mistral's API
        ([None, None, "refusal"], "content_filter"),
    ],
)
async def test_reasons_are_read_however_a_server_writes_them(reasons: list[str | None], expected: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.events(*(chunk(reason, content="Hi") for reason in reasons))

    events = await answered(handler, chat())
    assert text_of(events) == "HiHiHi"
    assert events[-2:-1] == [Ended(events[-1].id, 0, expected)]  # type: ignore[arg-type,union-attr]


ENDINGS = {
    "OpenRouter": {"error": {"code": 429, "message": "no credits"}, **chunk("error", content="")},
    "llama-server before 2026": b'error: {"code": 429, "message": "no credits", "type": "rate_limit_error"}\n\n',
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_an_error_in_a_stream_keeps_its_message_and_status(name: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.events(chunk(content="Hi"), ENDINGS[name])

    error = await failed(handler, chat())
    assert (type(error), error.status) == (ModelBusy, 429)
    assert "no credits" in error.message


@pytest.mark.parametrize("content_type", [b"", b"content-type: text/plain\r\n"])
async def test_a_stream_is_known_by_its_beginning_if_it_is_called_something_else(content_type: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.send(b"HTTP/1.0 200 OK\r\n" + content_type + b"\r\n")
        for event in (chunk(content="Hi"), chunk("stop", USAGE)):
            await connection.send(b"data:" + json.dumps(event).encode() + b"\r\n\r\n")
        connection.writer.close()

    events = await answered(handler, chat())
    assert [type(event) for event in events] == [Delta, Ended, Finished]


ERRORS: dict[str, tuple[int, object, type[ApiError], dict[str, Any]]] = {
    "a bad parameter": (
        400,
        {"error": {"message": "no such seed", "type": "invalid_request_error", "param": "seed", "code": "bad_seed"}},
        InvalidRequest,
        {"param": "seed", "reply_code": "bad_seed", "status": 400},
    ),
    "the words of FastAPI": (
        422,
        {"detail": [{"loc": ["body", "seed"], "msg": "is odd"}]},
        InvalidRequest,
        {"status": 400},
    ),
    "a long prompt": (
        400,
        {"error": {"message": "too long", "code": "context_length_exceeded"}},
        ContextLengthExceeded,
        {"status": 400},
    ),
    "a wrong key": (
        401,
        {"error": {"message": f"bad key {KEY}"}},
        UpstreamRefused,
        {"status": 503, "retryable": False},
    ),
    "a forbidden model": (403, {"error": "no"}, UpstreamRefused, {"status": 503, "retryable": False}),
    "an unknown model": (404, {"detail": "no model"}, UpstreamRefused, {"status": 503, "retryable": False}),
    "a limit": (429, {"error": {"message": "slow down"}}, ModelBusy, {"status": 429, "retry_after_seconds": 7.0}),
    "a quota": (
        429,
        {"error": {"message": "pay", "code": "insufficient_quota"}},
        ModelBusy,
        {"retryable": False, "reply_code": "insufficient_quota"},
    ),
    "a page": (502, b"<html><title>Bad gateway</title></html>", UpstreamFailed, {"status": 502}),
    "nothing": (500, b"", UpstreamFailed, {"status": 502}),
    "too much": (503, {"message": "full"}, UpstreamUnavailable, {"status": 503, "retry_after_seconds": 7.0}),
    "a gateway that waited": (504, b"late", UpstreamTimeout, {"status": 504}),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_of_the_upstream_is_told_with_its_words_and_a_fitting_status(name: str) -> None:
    status, content, kind, facts = ERRORS[name]

    async def handler(connection: Connection) -> None:
        await connection.reply(status, content, retry_after="7")

    error = await failed(handler, chat(), key=KEY)
    assert type(error) is kind
    assert {fact: getattr(error, fact) for fact in facts} == facts


async def cut(connection: Connection) -> None:
    await connection.events(chunk(content="Hi"), end=b"")


async def torn(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\ndata: {}")
    connection.writer.close()


async def nonsense(connection: Connection) -> None:
    await connection.events(b"data: {nonsense\n\n")


async def not_even_http(connection: Connection) -> None:
    await connection.send(b"\x00\x01\x02\r\n\r\n")
    connection.writer.close()


async def a_page(connection: Connection) -> None:
    await connection.reply(200, b"<html>Log in</html>", content_type="text/html")


async def silence(connection: Connection) -> None:
    connection.writer.close()


async def an_error_inside(connection: Connection) -> None:
    await connection.events(chunk(content="Hi"), {"error": {"message": "out of memory", "type": "server_error"}})


async def no_answer(connection: Connection) -> None:
    await connection.events()


async def gave_up(connection: Connection) -> None:
    await connection.events(chunk(content="Hi"), chunk("abort"))


async def broken_gzip(connection: Connection) -> None:
    await connection.reply(200, b"no gzip", content_encoding="gzip")


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (cut, UpstreamUnavailable),
        (torn, UpstreamUnavailable),
        (nonsense, UpstreamFailed),
        (not_even_http, UpstreamUnavailable),
        (a_page, UpstreamFailed),
        (silence, UpstreamUnavailable),
        (an_error_inside, UpstreamFailed),
        (no_answer, UpstreamFailed),
        (gave_up, UpstreamFailed),
        (broken_gzip, UpstreamFailed),
    ],
)
async def test_what_is_no_answer_is_an_error_and_the_entry_unhealthy(handler: Handler, kind: type[ApiError]) -> None:
    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        with pytest.raises(kind):
            await answer(engine, chat())
        assert (engine.vitals().healthy, engine.vitals().idle, len(upstream.asked)) == (False, True, 1)


async def test_an_answer_makes_it_healthy_again() -> None:
    async def handler(connection: Connection) -> None:
        await (connection.reply(500, b"") if len(upstream.asked) == 1 else connection.reply(200, WHOLE))

    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        with pytest.raises(UpstreamFailed):
            await answer(engine, chat())
        await answer(engine, chat())
        assert engine.vitals().healthy


async def test_a_client_that_leaves_closes_the_connection_upstream() -> None:
    left = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        await connection.send(f"data: {json.dumps(chunk(content='Hi'))}\n\n".encode())
        await connection.left()
        left.set()

    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        events = engine.answer(chat())
        assert isinstance(await anext(events), Delta)
        assert (engine.vitals().running, engine.vitals().unanswered) == (1, 0)
        await events.aclose()
        await asyncio.wait_for(left.wait(), 10)
        assert (engine.vitals().running, engine.vitals().healthy) == (0, True)


@pytest.mark.parametrize("begun", [False, True])
async def test_silence_is_bounded_before_and_after_the_first_token(*, begun: bool) -> None:
    async def handler(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        if begun:
            await connection.send(f"data: {json.dumps(chunk(content='Hi'))}\n\n".encode())
        await connection.left()

    limits = {"first_token_seconds": 60.0, "idle_seconds": 0.05} if begun else {"first_token_seconds": 0.05}
    error = await failed(handler, chat(), **limits)
    assert isinstance(error, UpstreamTimeout)
    assert ("idle_seconds" if begun else "first_token_seconds") in error.message


SILENT = {
    "an answer": chat(stream=False),
    "vectors": Embed(id=0, inputs=["a"]),
    "a file": Forward(id=0, path="/audio/speech", body={"input": "Hi"}),
}


BEGINNING = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"


@pytest.mark.parametrize("sent", [b"", BEGINNING])
@pytest.mark.parametrize("name", SILENT)
async def test_silence_is_bounded_if_nothing_is_streamed(name: str, sent: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.send(sent)
        await connection.left()

    error = await failed(handler, SILENT[name], reply_seconds=0.05, idle_seconds=0.05)
    assert (type(error), error.status) == (UpstreamTimeout, 504)
    assert "_seconds" in error.message


@pytest.mark.parametrize("ends", [b"0\r\n\r\n", b""])
async def test_the_connection_of_a_complete_stream_is_used_again(*, ends: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for event in (chunk(content="Hi"), chunk("stop", USAGE), None):
            data = b"data: " + (json.dumps(event).encode() if event else b"[DONE]") + b"\n\n"
            await connection.send(b"%x\r\n%b\r\n" % (len(data), data))
        await connection.send(ends)  # without it, the stream stays open, as those of some servers do

    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        for _ in range(2):
            assert text_of(await answer(engine, chat())) == "Hi"
            if ends:
                await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith("end of")))
        first, second = upstream.asked
        assert (first.writer is second.writer) == bool(ends)


async def test_a_server_that_knows_no_stream_options_is_asked_without_them() -> None:
    async def handler(connection: Connection) -> None:
        if "stream_options" in connection.json:
            await connection.reply(400, {"error": {"message": "unknown field stream_options"}})
        else:
            await connection.events(chunk(content="Hi"), chunk("stop"))

    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        for _ in range(2):
            assert text_of(await answer(engine, chat())) == "Hi"
        assert len(upstream.asked) == 3


async def test_a_redirect_to_another_server_is_refused_and_the_key_stays_here() -> None:
    async def elsewhere(connection: Connection) -> None:
        raise AssertionError(connection.path)

    async with raw_upstream(elsewhere) as other:

        async def handler(connection: Connection) -> None:
            await connection.reply(307, b"", location=f"{other.url}/chat/completions")

        error = await failed(handler, chat(), key=KEY)
        assert (type(error), other.asked) == (UpstreamRefused, [])


async def test_a_redirect_on_the_same_server_is_followed() -> None:
    async def handler(connection: Connection) -> None:
        if connection.path.startswith("/v1/"):
            await connection.reply(308, b"", location="/api/chat")
        else:
            await connection.reply(200, {**WHOLE, "echo": connection.json["messages"]})

    assert text_of(await answered(handler, chat())) == "Hi"


async def nothing(connection: Connection) -> None:
    await connection.reply(404, {"detail": "Not Found"})


async def test_the_only_model_needs_no_name_and_its_context_is_known() -> None:
    models = [{"id": "only", "max_model_len": 4096}]
    async with raw_upstream(nothing, models=models) as upstream, engine_at(upstream) as engine:
        assert (engine.model, engine.loaded.context_length) == ("only", 4096)


async def test_several_models_need_a_name() -> None:
    models = [{"id": "a"}, {"id": "b"}]
    async with raw_upstream(nothing, models=models) as upstream:
        with pytest.raises(LoadFailed) as raised:
            async with engine_at(upstream):
                pass
        assert all(model["id"] in raised.value.message for model in models)


async def test_the_context_of_llama_server_is_found_in_its_properties() -> None:
    async def handler(connection: Connection) -> None:
        assert connection.path == "/props"
        await connection.reply(200, {"default_generation_settings": {"n_ctx": 2048}})

    models = [{"id": "m.gguf", "owned_by": "llamacpp", "meta": {"n_ctx_train": 9999}}]
    async with raw_upstream(handler, models=models) as upstream, engine_at(upstream) as engine:
        assert engine.loaded.context_length == 2048


async def test_tokens_are_counted_by_the_server_beside_its_api() -> None:
    async def handler(connection: Connection) -> None:
        if connection.path == "/tokenize":
            await connection.reply(200, {"tokens": [1, 2], "count": 2, "prompt": connection.json["prompt"]})
        elif connection.path == "/detokenize":
            await connection.reply(200, {"prompt": "Hi"})
        else:
            await nothing(connection)

    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        assert await answer(engine, Tokenize(1, "Hi")) == [TokenizedText(1, [1, 2])]
        assert await answer(engine, Detokenize(2, [1, 2])) == [DetokenizedText(2, "Hi")]


async def test_a_server_without_tokens_gives_a_400() -> None:
    error = await failed(nothing, Tokenize(1, "Hi"))
    assert (error.status, error.reply_code) == (400, "unsupported_endpoint")


async def test_bytes_are_forwarded_with_their_type() -> None:
    async def handler(connection: Connection) -> None:
        assert connection.json == {"model": "big", "input": "Hi"}
        await connection.reply(200, b"\x00" * 100_000, content_type="audio/ogg")

    events = await answered(handler, Forward(id=1, path="/audio/speech", body={"input": "Hi"}))
    assert events[0] == ForwardedHead(1, "audio/ogg", 100_000)
    assert b"".join(event.data for event in events if isinstance(event, ForwardedData)) == b"\x00" * 100_000


async def test_speech_for_a_pool_comes_as_samples_that_are_whole() -> None:
    async def handler(connection: Connection) -> None:
        assert connection.json == {"model": "big", "input": "Hi", "response_format": "pcm", "voice": "amy"}
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ncontent-length: 6\r\n\r\n"
        await connection.send(head + b"\x01\x02\x03")
        await asyncio.sleep(0.02)
        await connection.send(b"\x04\x05\x06")

    events = await answered(handler, Speak(id=1, segments=["Hi"], voice="amy"))
    sounds = [event for event in events if isinstance(event, Sound)]
    assert b"".join(sound.pcm for sound in sounds) == b"\x01\x02\x03\x04\x05\x06"
    assert all(len(sound.pcm) % 2 == 0 for sound in sounds)


async def test_a_completion_comes_with_its_log_probabilities() -> None:
    logprobs = {"tokens": ["H"], "token_logprobs": [-1.0], "top_logprobs": [{"H": -1.0}], "text_offset": [0]}

    async def handler(connection: Connection) -> None:
        await connection.events({"choices": [{"index": 0, "text": "H", "logprobs": logprobs, "finish_reason": "eos"}]})

    request = Complete(id=1, prompt="x", original={"model": "m", "prompt": "x", "stream": True})
    delta, ended, *_ = await answered(handler, request)
    assert isinstance(delta, Delta)
    assert [(token.token, token.logprob) for token in delta.logprobs] == [(b"H", -1.0)]
    assert ended == Ended(1, 0, "stop")


async def test_an_upstream_that_is_not_there_is_said_to_be_unreachable() -> None:
    async with raw_upstream(nothing) as upstream:
        pass
    engine = HttpEngine("cloud", Upstream(url=upstream.url), Sought())
    with pytest.raises(UpstreamUnavailable, match=f"127.0.0.1:{upstream.port}"):
        await engine.connect()
    await engine.close()


async def test_an_entry_that_is_closed_while_it_tries_to_connect_again_is_unavailable() -> None:
    async with raw_upstream(nothing) as upstream, engine_at(upstream) as engine:
        engine._client.base = "http://127.0.0.1:1/v1"
        asked = asyncio.create_task(answer(engine, chat()))
        await asyncio.sleep(0)
        assert engine.vitals().unanswered
        await engine.close()
        with pytest.raises(UpstreamUnavailable):
            await asked


BASES = {
    "http://a": ("http://a/v1", "http://a"),
    "http://a/": ("http://a/v1", "http://a"),
    "http://a/v1/": ("http://a/v1",),
    "http://a/v1/v1": ("http://a/v1",),
    "http://a/v1/chat/completions": ("http://a/v1",),
    "http://a/llm": ("http://a/llm/v1", "http://a/llm"),
    "https://a/v1beta/openai/": ("https://a/v1beta/openai",),
    "https://a/api/paas/v4": ("https://a/api/paas/v4",),
}


@pytest.mark.parametrize("url", BASES)
def test_an_address_may_be_given_with_or_without_v1(url: str) -> None:
    assert Upstream(url=url).bases() == BASES[url]


WARNED = {
    "http://127.0.0.1:1": ("key", True, False),
    "http://gpu-box:1": ("key", True, True),
    "https://gpu-box:1": ("key", True, False),
    "https://gpu-box:2": (None, False, True),
}


@pytest.mark.parametrize("url", WARNED)
def test_what_is_not_safe_is_warned_of(url: str) -> None:
    key, verify, warned = WARNED[url]
    assert bool(Upstream(url=url, key=key, verify=verify).warnings) == warned


def test_secrets_are_not_in_a_description() -> None:
    assert KEY not in repr(Upstream(url="http://a", key=KEY, headers={"api-key": KEY}))


def test_probes_come_less_and_less_often() -> None:
    assert [probe_pause(failures) for failures in (0, 1, 2, 3, 7, 100)] == [30, 1, 2, 4, 60, 60]


async def test_a_server_that_has_no_time_for_probes_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    probed = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.reply(429, {"error": {"message": "slow down"}})
        if len(upstream.asked) > 1:
            probed.set()

    monkeypatch.setattr(http_engine, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(http_engine, "FIRST_PROBE_SECONDS", 0.01)
    async with raw_upstream(handler) as upstream, engine_at(upstream, probe_path="/health") as engine:
        await probed.wait()
        assert engine.vitals().healthy
    assert [record for record in caplog.records if record.exc_info] == []


def test_the_rate_is_that_of_answers_that_ended_lately() -> None:
    rate = AnswerRate()
    assert rate.per_second(100) is None
    rate.note(100.0, 102.0, 40)
    rate.note(100.0, 102.0, 40)
    assert rate.per_second(102) == 40
    assert rate.per_second(120) is None


async def test_vectors_come_in_order_and_in_either_form() -> None:
    async def handler(connection: Connection) -> None:
        assert connection.path == "/v1/embeddings"
        asked.append(connection.json)
        first = base64.b64encode(array("f", [1.0, 2.0]).tobytes()).decode()
        data = [{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": first}]
        await connection.reply(200, {"data": data, "usage": {"prompt_tokens": 5}})

    asked: list[Any] = []
    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        (got,) = [event async for event in engine.answer(Embed(id=1, inputs=["a", "b"], input_type="query"))]
    assert isinstance(got, Embedded)
    assert [array("f", vector).tolist() for vector in got.vectors] == [[1.0, 2.0], [3.0, 4.0]]
    assert got.tokens == 5
    assert asked == [{"model": "big", "input": ["a", "b"], "encoding_format": "base64", "input_type": "query"}]


async def test_scores_come_in_the_order_of_the_documents() -> None:
    async def handler(connection: Connection) -> None:
        assert connection.json == {"model": "big", "query": "q", "documents": ["a", "b"]}
        results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        await connection.reply(200, {"results": results})

    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        (got,) = [event async for event in engine.answer(Rerank(id=1, query="q", documents=["a", "b"]))]
    assert got == Ranked(1, [0.1, 0.9], 0)


@pytest.mark.parametrize(
    "reply",
    [
        {"data": [{"index": 0, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
        {"data": [{"embedding": "no base64!"}, {"embedding": [1.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": ["x"]}]},
        {"data": [{"embedding": [1.0]}, {}]},
        {"object": "list"},
    ],
)
async def test_a_reply_without_a_vector_for_each_text_is_the_upstreams_fault(reply: dict[str, Any]) -> None:
    async def handler(connection: Connection) -> None:
        await connection.reply(200, reply)

    async with raw_upstream(handler) as upstream, engine_at(upstream) as engine:
        with pytest.raises(UpstreamFailed):
            [event async for event in engine.answer(Embed(id=1, inputs=["a", "b"]))]


async def test_a_server_that_lists_nothing_gets_no_name_and_hears_where_a_request_has_been() -> None:
    async def handler(connection: Connection) -> None:
        assert "model" not in connection.json
        assert connection.headers["x-localapi-via"] == "one, two"
        progress = json.dumps({"progress": {"state": "queued", "model": "m", "position": 3}})
        await connection.events(f": {progress}\n\n".encode(), {"choices": [{"index": 0, "delta": {"content": "Hi"}}]})

    before = via.set(("one", "two"))
    try:
        async with raw_upstream(handler, models=[]) as upstream, engine_at(upstream) as engine:
            events = [event async for event in engine.answer(chat())]
    finally:
        via.reset(before)
    waits = events[0]
    assert isinstance(waits, Awaiting)
    assert (waits.state, waits.position, waits.at) == ("queued", 3, engine.upstream.host)
