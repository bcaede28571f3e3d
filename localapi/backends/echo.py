"""Echo: answers without a model, inside the server. For trying the API, for tests, and for clients' own tests.

Chat repeats the last user message word by word.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Literal

from localapi.backends.engine import Engine, ReportLoading
from localapi.backends.options import ChatOptions, SpeechOptions
from localapi.worker.protocol import Chat, Delta, Event, Finished, Loaded


class Echo(ChatOptions):
    """A chat model that repeats what the user said last."""

    backend: Literal["echo"]

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoEngine()


class EchoSpeech(SpeechOptions):
    """A voice that sounds a tone as long as the text would take."""

    backend: Literal["echo"]

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoEngine()


class EchoEngine:
    """The engine behind both."""

    def __init__(self) -> None:
        self.loaded = Loaded()
        self.pid = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def chat(self, request: Chat) -> AsyncGenerator[Event, None]:
        """One word is one token; `stop` and `max_tokens` hold, sampling has nothing to choose."""
        words = _words(_last_user_text(request))
        prompt_tokens = sum(len(_words(message.get("content") or "")) for message in request.messages)
        answer, stopped = _cut("".join(words), request.stop)
        sent = 0
        for count, word in enumerate(_words(answer)):
            if count == request.max_tokens:
                yield Finished(request.id, "length", prompt_tokens, count)
                return
            yield Delta(request.id, word)
            sent = count + 1
            await asyncio.sleep(0)
        yield Finished(request.id, "stop", prompt_tokens, sent + stopped)

    async def close(self) -> None:
        """Nothing to give back."""


def _words(text: str) -> list[str]:
    """The text cut before each word, so that joining gives it back."""
    return re.findall(r"\s*\S+|\s+$", text)


def _last_user_text(request: Chat) -> str:
    texts = (m.get("content") or "" for m in reversed(request.messages) if m["role"] == "user")
    return str(next(texts, ""))


def _cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
