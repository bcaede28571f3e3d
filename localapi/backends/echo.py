"""The backend echo: answers without a model, inside the server, for trying the API and for tests of clients.

Chat repeats the last user message word by word; a completion repeats its prompt.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Final, Literal

import msgspec
from pydantic import Field

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.image_options import SeeingOptions
from localapi.backends.in_process import InProcessEngine
from localapi.backends.parameters import FORMS, MEDIA, TEXT
from localapi.errors import InvalidRequest
from localapi.images.header import read_header
from localapi.worker.protocol import (
    AudioPart,
    Capabilities,
    Chat,
    Complete,
    Delta,
    Detokenize,
    DetokenizedText,
    Ended,
    Event,
    Finished,
    ImagePart,
    Loaded,
    Message,
    Request,
    TextPart,
    Tokenize,
    TokenizedText,
    TokenLogprob,
)

NOTHING_BUT_TEXT: Final = Capabilities(
    tools=False, forced_tools=False, json_schema=False, thinking=False, thinking_switch=False, thinking_levels=False,
    vision=False, hearing=False,
)  # fmt: skip


class Echo(SeeingOptions):
    """Options of a chat model that repeats the last user message."""

    honours = (TEXT | MEDIA) - FORMS - {"tool_choice"}
    backend: Annotated[Literal["echo"], Field(description="No model: repeats the last message, to try clients.")]
    media: Annotated[
        list[Literal["image", "audio"]],
        Field(
            description="What messages may hold beside text. The answer tells how many images and recordings there "
            "are, and how large.",
            examples=[["image"]],
        ),
    ] = []  # noqa: RUF012  # pydantic copies it

    def expected(self) -> Capabilities:
        return msgspec.structs.replace(NOTHING_BUT_TEXT, vision="image" in self.media, hearing="audio" in self.media)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoEngine(self.expected())


class EchoEngine(InProcessEngine):
    """Engine that counts one token per word, or one per character in tokenize and detokenize."""

    def __init__(self, capabilities: Capabilities = NOTHING_BUT_TEXT) -> None:
        super().__init__()
        self._loaded = Loaded(capabilities=capabilities)

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Repeat the prompt. Honour `stop`, `max_tokens`, `n` and logprobs; sampling has nothing to choose."""
        match request:
            case Tokenize():
                yield TokenizedText(request.id, [ord(c) for c in _tokenized(request)])
            case Detokenize():
                yield DetokenizedText(request.id, _characters(request.tokens))
            case Chat() | Complete():
                for event in _echo(request):
                    yield event
                    await asyncio.sleep(0)
            case _:
                raise InvalidRequest("This model answers with text: use POST /v1/chat/completions.")


def _echo(request: Chat | Complete) -> Iterator[Event]:
    prompt, text, prompt_tokens = _read(request)
    answer, stop_string = _cut(text, request.stop)
    words = _words(answer)
    most = len(words) if request.max_tokens is None else request.max_tokens
    for choice in range(request.n):
        if isinstance(request, Complete) and request.echo:
            yield Delta(request.id, prompt, choice)
        for word in words[:most]:
            named = [] if request.top_logprobs is None else [TokenLogprob(word.encode(), 0.0)]
            yield Delta(request.id, word, choice, logprobs=named)
        if most < len(words):
            yield Ended(request.id, choice, "length")
        else:
            yield Ended(request.id, choice, "stop", stop_string)
    said = min(most, len(words)) + (stop_string is not None and most >= len(words))
    yield Finished(request.id, prompt_tokens, said * request.n)


def _read(request: Chat | Complete) -> tuple[str, str, int]:
    """Return the prompt, the answer, and the number of prompt tokens."""
    if isinstance(request, Complete):
        prompt = request.prompt if isinstance(request.prompt, str) else _characters(request.prompt)
        return prompt, prompt, len(_words(prompt))
    users = (_said(message) for message in reversed(request.messages) if message.role == "user")
    tokens = sum(len(_words(_said(message))) for message in request.messages)
    return "", next(users, ""), tokens


def _said(message: Message) -> str:
    """Return the text of a message, and a line about each image and recording: `[image 1: png, 640x480]`."""
    if isinstance(message.content, str):
        return message.content
    lines: list[str] = []
    images = recordings = 0
    for part in message.content:
        match part:
            case TextPart():
                lines.append(part.text)
            case ImagePart():
                images += 1
                header = read_header(part.data or b"")
                detail = f", detail {part.detail}" if part.detail else ""
                lines.append(f"[image {images}: {header.format}, {header.width}x{header.height}{detail}]")
            case AudioPart():
                recordings += 1
                lines.append(f"[audio {recordings}: {part.format}, {len(part.data)} bytes]")
    return "\n".join(lines)


def _tokenized(request: Tokenize) -> str:
    messages = request.chat.messages if request.chat else []
    return request.text or "\n".join(_said(message) for message in messages)


def _characters(tokens: list[int]) -> str:
    try:
        text = "".join(map(chr, tokens))
        text.encode()  # halves of surrogate pairs are not characters
    except (ValueError, OverflowError) as error:
        raise InvalidRequest("Tokens of the echo backend are Unicode code points.", param="tokens") from error
    return text


def _words(text: str) -> list[str]:
    """Return the text split before each word; the parts joined are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def _cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Return the text before the first stop string, and that stop string."""
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    at, stop = min(found)
    return text[:at], stop
