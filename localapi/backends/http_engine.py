"""Engine on another server with OpenAI's API: its requests, its health, and the facts about its model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import msgspec

from localapi.backends.engine import InProcessEngine, Vitals
from localapi.backends.http_client import HttpClient
from localapi.backends.openai_body import body_of, named_model, without_model
from localapi.backends.openai_events import AnswerReader, BadReply, CutOff, scores_in, tokens_in, vectors_in
from localapi.backends.token_rate import MEASURABLE_SECONDS, AnswerRate
from localapi.backends.upstream import MODELS, Sought, Upstream
from localapi.backends.upstream_facts import Facts, discover
from localapi.backends.upstream_replies import complaint_in
from localapi.errors import (
    ApiError,
    InvalidRequest,
    LoadFailed,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from localapi.system.threads import aside
from localapi.system.timer import growing_pause
from localapi.worker.protocol import (
    Awaiting,
    Chat,
    ComesWhole,
    Complete,
    Detokenize,
    DetokenizedText,
    Embed,
    Embedded,
    Event,
    Finished,
    Forward,
    ForwardedData,
    ForwardedEnd,
    ForwardedHead,
    Loaded,
    Prefill,
    Preliminary,
    Ranked,
    Request,
    Rerank,
    Sound,
    Speak,
    Spoken,
    Tokenize,
    TokenizedText,
)

log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 30.0
"""Time after the last sign of life until a healthy server is probed."""
FIRST_PROBE_SECONDS: Final = 1.0
LONGEST_PROBE_SECONDS: Final = 60.0
PCM_HZ: Final = 24_000
"""Sample rate of `pcm` according to OpenAI's documentation; mono, two bytes per sample."""
_UNHEALTHY: Final = (UpstreamUnavailable, UpstreamFailed, UpstreamTimeout, UpstreamRefused)


def probe_pause(failures: int) -> float:
    """Return the seconds until the next probe, given the number of failed ones."""
    if failures == 0:
        return PROBE_SECONDS
    return growing_pause(failures, FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS)


class HttpEngine(InProcessEngine):
    """Engine on another server; see `backends.engine.Engine`. Call `connect` before anything else."""

    def __init__(self, name: str, upstream: Upstream, sought: Sought) -> None:
        super().__init__()
        self.name = name
        self.upstream = upstream
        self.model = sought.model
        self.facts = Facts()
        self._sought = sought
        self._client = HttpClient(name, upstream)
        self._failures = 0
        self._fault: str | None = None
        self._heard_at = time.monotonic()
        self._failed = asyncio.Event()
        self._latency: float | None = None
        self._rate = AnswerRate()
        self._without_usage = False
        """True if the server rejects requests for usage."""
        self._probes: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> Loaded:
        return Loaded(
            context_length=self.facts.context_length,
            voices=self.facts.voices,
            notes=list(self.facts.notes),
        )

    async def connect(self) -> None:
        """Find the model on the server. Raise LoadFailed, and close the engine then."""
        for warning in self.upstream.warnings:
            log.warning("%s: %s", self.name, warning)
        try:
            await self._client.open()
            self.facts = await discover(self._client, self.name, self._sought)
        except BaseException as error:
            await self.close()
            if isinstance(error, ApiError) and not isinstance(error, LoadFailed):
                raise UpstreamUnavailable(error.message, retry_after_seconds=error.retry_after_seconds) from error
            raise
        self.model = self.facts.model
        self._sought = replace(self._sought, model=self.model)
        self._probes = asyncio.create_task(self._probe(), name=f"probes of {self.name}")

    def vitals(self) -> Vitals:
        return Vitals(
            running=self._begun,
            unanswered=self._given - self._begun,
            memory_bytes=0,
            tokens_per_second=self._rate.per_second(time.monotonic()),
            latency_seconds=self._latency,
            last_step_at=self._heard_at,
            healthy=self._fault is None,
            reason=self._fault,
        )

    async def close(self) -> None:
        if self._probes is not None:
            self._probes.cancel()
            await asyncio.gather(self._probes, return_exceptions=True)
        await self._client.close()

    # Requests

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(self._reply(request)) as events:
                try:
                    async for event in events:
                        yield event
                except BadReply as error:
                    kind = UpstreamUnavailable if isinstance(error, CutOff) else UpstreamFailed
                    raise kind(
                        f"The reply of the upstream of {self.name} is unusable: {error}. Send the request again."
                    ) from error
        except _UNHEALTHY as error:
            self._note_failure(error)
            raise
        self._note_success()

    def _reply(self, request: Request) -> AsyncGenerator[Event, None]:
        match request:
            case Chat() | Complete():
                events: AsyncGenerator[Event, None] = self._answer(request)
            case Tokenize():
                events = self._tokenize(request)
            case Detokenize():
                events = self._detokenize(request)
            case Forward():
                events = self._forward(request)
            case Speak():
                events = self._speak(request)
            case Embed():
                events = self._embed(request)
            case Rerank():
                events = self._rerank(request)
            case _:
                raise InvalidRequest("Models on other servers do not support such requests yet.")
        return events

    async def _answer(self, request: Chat | Complete) -> AsyncGenerator[Event, None]:
        path = "/chat/completions" if isinstance(request, Chat) else "/completions"
        started = time.monotonic()
        first: float | None = None
        async with aclosing(self._stream(request, path)) as events:
            async for event in events:
                if first is None and not isinstance(event, Preliminary):
                    first = time.monotonic()
                    self._latency = first - started
                    self._note_success()
                if isinstance(event, Finished) and event.counted and first is not None:
                    now = time.monotonic()
                    # What arrives in one piece was generated before it was sent.
                    began = first if now - first >= MEASURABLE_SECONDS else started
                    self._rate.note(began, now, event.completion_tokens)
                yield event

    async def _stream(self, request: Chat | Complete, path: str) -> AsyncGenerator[Event, None]:
        body = body_of(request, self.model)
        if body.get("stream") is not True:
            yield ComesWhole(request.id)
            reply = await self._client.post(path, body)
            self._refuse_error(reply)
            reader = AnswerReader(request)
            for event in (*reader.read(reply, whole=True), *reader.end()):
                yield event
            return
        asked = self._ask_for_usage(body)
        try:
            async with aclosing(self._client.stream(path, body)) as received:
                async for event in self._streamed(request, received):
                    yield event
        except InvalidRequest as error:
            if not asked or "stream_options" not in f"{error.param} {error.message}":
                raise
            self._without_usage = True
            log.info("%s: the upstream does not count the tokens of streams: %s", self.name, error.message)
            body = body_of(request, self.model)
            async with aclosing(self._client.stream(path, body)) as received:
                async for event in self._streamed(request, received):
                    yield event

    def _ask_for_usage(self, body: dict[str, Any]) -> bool:
        """Request usage at the end of a stream even if the client did not. Return True if the client did not."""
        options = body.get("stream_options")
        options = options if isinstance(options, dict) else {}
        if self._without_usage or options.get("include_usage") is True:
            return False
        body["stream_options"] = {**options, "include_usage": True}
        return True

    async def _streamed(
        self, request: Chat | Complete, received: AsyncGenerator[dict[str, Any] | None, None]
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a stream. None among the received items marks its regular end."""
        reader = AnswerReader(request)
        ended = False
        async for chunk in received:
            if chunk is None:
                ended = True
                break
            if "progress" in chunk and "choices" not in chunk:
                progress = self._progress(request.id, chunk["progress"])
                if progress is not None:
                    yield progress
                continue
            self._refuse_error(chunk)
            for event in reader.read(chunk, whole="message" in _first_choice(chunk)):
                yield event
        for event in reader.end(is_regular=ended):
            yield event

    def _progress(self, request: int, progress: object) -> Prefill | Awaiting | None:
        """Return the progress that another localapi reports between the events of a stream; None if unknown."""
        if not isinstance(progress, dict):
            return None
        kind = "Prefill" if progress.get("state") == "prompt" else "Awaiting"
        try:
            return msgspec.convert(
                {"at": self.upstream.host, **progress, "type": kind, "id": request}, Prefill | Awaiting
            )
        except msgspec.ValidationError:
            return None

    def _refuse_error(self, reply: dict[str, Any]) -> None:
        """Raise the error that takes the place of a response."""
        if reply.get("error") or (reply.get("object") == "error" and not reply.get("choices")):
            found = complaint_in(reply)
            raise self._client.scrubbed(found).error(self.name, self.model)

    async def _forward(self, request: Forward) -> AsyncGenerator[Event, None]:
        body = {**without_model(request.body), **named_model(self.model)}
        async with aclosing(self._client.raw(request.path, body, request.file)) as received:
            head = await anext(received)
            assert isinstance(head, ForwardedHead)  # noqa: S101  # `raw` begins with it
            yield ForwardedHead(request.id, head.content_type, head.length)
            async for data in received:
                assert isinstance(data, bytes)  # noqa: S101  # and goes on with bytes
                yield ForwardedData(request.id, data)
        yield ForwardedEnd(request.id)

    async def _speak(self, request: Speak) -> AsyncGenerator[Event, None]:
        """Yield sound that this server still encodes: a pool may also have members of other backends."""
        for at, segment in enumerate(request.segments):
            body = {**named_model(self.model), "input": segment, "response_format": "pcm"}
            if request.voice is not None:
                body["voice"] = request.voice
            if request.speed != 1.0:
                body["speed"] = request.speed
            if "instruct_text" in request.options:
                body["instructions"] = request.options["instruct_text"]
            odd = b""
            async with aclosing(self._client.raw("/audio/speech", body)) as received:
                async for data in received:
                    if isinstance(data, bytes):
                        samples = odd + data
                        odd = samples[len(samples) & ~1 :]
                        if len(samples) > 1:
                            yield Sound(request.id, at, samples[: len(samples) & ~1], PCM_HZ)
        yield Spoken(request.id)

    # Vectors

    async def _embed(self, request: Embed) -> AsyncGenerator[Event, None]:
        body = {**named_model(self.model), "input": request.inputs, "encoding_format": "base64"}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        if request.truncate:
            body["truncate"] = True
        if request.input_type is not None:
            body["input_type"] = request.input_type
        reply = await self._timed("/embeddings", body)
        vectors = await aside(lambda: vectors_in(reply, len(request.inputs)))
        yield Embedded(request.id, vectors, tokens_in(reply))

    async def _rerank(self, request: Rerank) -> AsyncGenerator[Event, None]:
        body = {**named_model(self.model), "query": request.query, "documents": request.documents}
        if not request.truncate:
            body["truncate"] = False
        reply = await self._timed("/rerank", body)
        yield Ranked(request.id, scores_in(reply, len(request.documents)), tokens_in(reply))

    async def _timed(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return a reply that arrives at once, and record how long it took."""
        started = time.monotonic()
        reply: dict[str, Any] = await self._client.post(path, body)
        self._refuse_error(reply)
        self._latency = time.monotonic() - started
        return reply

    # Tokens

    async def _tokenize(self, request: Tokenize) -> AsyncGenerator[Event, None]:
        body = {**named_model(self.model), "add_special_tokens": request.special, "add_special": request.special}
        if request.chat is not None:
            asked = body_of(request.chat, self.model)
            body |= {key: asked[key] for key in ("messages", "tools", "chat_template_kwargs") if key in asked}
        else:
            # The names in localapi, vLLM and llama-server.
            body |= {"text": request.text, "prompt": request.text, "content": request.text}
        reply = await self._about_tokens("/tokenize", body)
        tokens = reply.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise BadReply("it contains no tokens")
        yield TokenizedText(request.id, tokens)

    async def _detokenize(self, request: Detokenize) -> AsyncGenerator[Event, None]:
        reply = await self._about_tokens("/detokenize", {**named_model(self.model), "tokens": request.tokens})
        texts = [reply[key] for key in ("text", "prompt", "content") if isinstance(reply.get(key), str)]
        if not texts:
            raise BadReply("it contains no text")
        yield DetokenizedText(request.id, texts[0])

    async def _about_tokens(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the reply of the server's own endpoint, below the API's base or beside it."""
        for place in (path, f"/..{path}"):
            reply: dict[str, Any] | None = await self._client.post(place, body, missing_ok=True)
            if reply is not None:
                self._refuse_error(reply)
                return reply
        raise InvalidRequest(
            f"The upstream of {self.name} has no {path}; vLLM, llama-server and localapi have it.",
            param="model",
            code="unsupported_endpoint",
        )

    # Health

    def _note_success(self) -> None:
        self._heard_at = time.monotonic()
        if self._fault is not None:
            log.info("%s: the upstream responds again", self.name)
        self._failures, self._fault = 0, None

    def _note_failure(self, error: ApiError) -> None:
        if self._fault is None:
            log.warning("%s: %s", self.name, error.message)
        self._failures += 1
        self._fault = error.message
        self._failed.set()

    async def _probe(self) -> None:
        """Ask for the list of models from time to time: it costs nothing, and shows whether the server is up."""
        while True:
            pause = probe_pause(self._failures) - (0 if self._failures else time.monotonic() - self._heard_at)
            self._failed.clear()
            try:
                async with asyncio.timeout(max(pause, FIRST_PROBE_SECONDS)):
                    await self._failed.wait()
                continue
            except TimeoutError:
                pass
            if self._failures == 0 and time.monotonic() - self._heard_at < PROBE_SECONDS:
                continue
            try:
                if self.upstream.probe_path == MODELS:  # a server may report more about a loaded model
                    self.facts = await discover(self._client, self.name, self._sought)
                else:
                    await self._client.get(self.upstream.probe_path)
            except _UNHEALTHY as error:
                self._note_failure(error)
                self._failed.clear()
            except ApiError:  # it is running, even if it has no time
                self._note_success()
            except Exception:  # a bug here must not end the probes
                log.exception("%s: the upstream could not be probed", self.name)
            else:
                self._note_success()


def _first_choice(chunk: dict[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}
