"""A dialect of our own, made here in one place and served by a real server: no other file knows of it.

Its bodies are `{"to": model, "say": text, "whole": bool, "most": tokens}`; its streams are lines of JSON that end with
`{"over": …}`, and its errors are `{"oops": …, "why": code}`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from localapi.api.answers import Answer
from localapi.api.dialect import DialectBlueprint
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai.generation_request import unknown_fields
from localapi.app import Service, listen
from localapi.backends.echo import EchoEngine
from localapi.backends.parameters import ChatParameters
from localapi.errors import ApiError, GenerationFailed
from localapi.http import body
from localapi.http.replies import encode, told
from localapi.manifest import ManifestSource
from localapi.runtime.progress import Progress
from localapi.settings import Settings
from localapi.worker.protocol import Chat, Delta, Ended, Event, Finished, Message

pytestmark = pytest.mark.everyday

MANIFEST = """
server: {api_keys: {me: {file: me.key}}}
chat:
  parrot: {backend: echo, locked: {max_tokens: 3}}
  single: {backend: echo, max_concurrent: 1, max_waiting: 0}
"""


KEY = "a-key-of-a-test-0123456789"


class Letter(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    to: str
    say: str
    whole: bool = False
    most: Annotated[int | None, Field(ge=1)] = None


class LetterReply:
    content_type = "application/x-ndjson"
    model = ""

    def whole(self, answers: Sequence[Answer], usage: Finished) -> object:
        return {"from": self.model, "said": answers[0].text, "tokens": usage.completion_tokens}

    def render(self, item: Event) -> Iterator[bytes]:
        match item:
            case Delta():
                yield self._line({"bit": item.text})
            case Ended():
                yield self._line({"ends": item.reason})

    def progress(self, progress: Progress) -> bytes:
        return self._line({"wait": progress.facts()})

    def error(self, error: ApiError) -> bytes:
        return self._line(Letters().error_body(error))

    def end(self) -> bytes:
        return self._line({"over": self.model})

    def _line(self, content: object) -> bytes:
        return encode(content) + b"\n"


class Letters:
    path = "/letters"

    def parse(self, content: dict[str, Any]) -> tuple[NeutralRequest, LetterReply]:
        letter = body.parse(Letter, content)
        chat = Chat(id=0, messages=[Message("user", letter.say)])
        request = NeutralRequest(
            model=letter.to,
            asks=[chat],
            said=ChatParameters(max_tokens=letter.most),
            names={"max_tokens": ["most"]},
            stream=not letter.whole,
            ignored=unknown_fields(letter, content),
        )
        return request, LetterReply()

    def error_body(self, error: ApiError) -> dict[str, Any]:
        return {"oops": told(error), "why": error.reply_code or error.type}


class Post:
    """The server, and how letters are sent to it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, letter: object, *, key: str = KEY) -> tuple[int, http.client.HTTPMessage, list[dict[str, Any]]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        connection.request("POST", "/letters", json.dumps(letter), headers)
        reply = connection.getresponse()
        lines = [json.loads(line) for line in reply.read().splitlines()]
        connection.close()
        return reply.status, reply.headers, lines


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    """A server of this process, on a thread, with one more dialect."""
    file = tmp_path_factory.mktemp("letters") / "models.yaml"
    file.write_text(MANIFEST)
    key = file.with_name("me.key")
    key.write_text(KEY)
    key.chmod(0o600)
    listening = listen("127.0.0.1", 0)
    started, ended = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        service = Service(Settings(), ManifestSource(file))
        service.app.register_blueprint(DialectBlueprint(service.registry, Letters()))
        service._follow_signals = lambda: ended  # type: ignore[method-assign]  # only a main thread can
        await service.run(listening, started.set)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(60)
    yield Post(listening.getsockname()[1])
    loops[0].call_soon_threadsafe(ended.set)
    thread.join(60)


def test_a_whole_reply_has_the_dialects_form(post: Post) -> None:
    status, headers, content = post.send({"to": "parrot", "say": "one two", "whole": True})
    assert (status, headers["content-type"]) == (200, "application/json")
    assert content == [{"from": "parrot", "said": "one two", "tokens": 2}]


def test_a_stream_has_the_dialects_framing_and_end(post: Post) -> None:
    status, headers, lines = post.send({"to": "single", "say": "one two"})
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert lines == [{"bit": "one"}, {"bit": " two"}, {"ends": "stop"}, {"over": "single"}]


def test_locks_and_unknown_fields_are_named_as_the_client_wrote_them(post: Post) -> None:
    _, headers, lines = post.send({"to": "parrot", "say": "a b c d e", "most": 5, "stamp": 1})
    assert (headers["x-locked-params"], headers["x-ignored-params"]) == ("most", "stamp")
    assert lines[-2:] == [{"ends": "length"}, {"over": "parrot"}]


@pytest.mark.parametrize(
    ("letter", "key", "status", "why"),
    [
        ({"to": "nobody", "say": "hi"}, KEY, 404, "model_not_found"),
        ({"to": "parrot"}, KEY, 400, "missing_required_parameter"),
        (["no object"], KEY, 400, "invalid_request_error"),
        ({"to": "parrot", "say": "hi"}, "another-key", 401, "invalid_api_key"),
    ],
)
def test_an_error_before_the_answer_is_a_status_with_the_dialects_body(
    post: Post, letter: object, key: str, status: int, why: str
) -> None:
    found, _, [content] = post.send(letter, key=key)
    assert found == status
    assert content.keys() == {"oops", "why"}
    assert content["why"] == why


def test_an_error_after_the_first_token_is_the_last_line_and_nothing_ends_the_stream(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = EchoEngine.answer

    async def broken(self: EchoEngine, request: Chat) -> Any:
        async for event in answer(self, request):
            yield event
            raise GenerationFailed("out of words")

    monkeypatch.setattr(EchoEngine, "answer", broken)
    status, _, lines = post.send({"to": "single", "say": "one two"})
    assert status == 200
    assert lines == [{"bit": "one"}, {"oops": "out of words", "why": "generation_failed"}]


def test_a_request_that_waits_says_so_in_the_dialects_form(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = EchoEngine.answer
    told = threading.Event()
    shown = LetterReply.progress

    def progress(self: LetterReply, progress: Progress) -> bytes:
        told.set()
        return shown(self, progress)

    async def late(self: EchoEngine, request: Chat) -> Any:
        await asyncio.to_thread(told.wait, 60)
        async for event in answer(self, request):
            yield event

    monkeypatch.setattr("localapi.api.dialect.PRIME_SECONDS", 0.01)
    monkeypatch.setattr(LetterReply, "progress", progress)
    monkeypatch.setattr(EchoEngine, "answer", late)
    _, _, lines = post.send({"to": "parrot", "say": "hi"})
    assert lines == [
        {"wait": {"state": "waiting", "model": "parrot"}},
        {"bit": "hi"},
        {"ends": "stop"},
        {"over": "parrot"},
    ]


def test_openai_s_endpoints_keep_their_own_errors(post: Post) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", post.port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "nobody", "messages": []}), headers)
    assert json.loads(connection.getresponse().read())["error"].keys() == {"message", "type", "param", "code"}
    connection.close()
