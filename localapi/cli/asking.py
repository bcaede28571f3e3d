"""Send a request to a chat model of a running server, and read the response as it arrives, with its times."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

from localapi.client import Server
from localapi.client.measuring import CHAT_PATH, streamed
from localapi.errors import NoServer, OperatorError, Refused
from localapi.kinds import CHAT
from localapi.system.byte_sizes import readable

MEASURABLE_SECONDS: Final = 0.2
MEASURABLE_TOKENS: Final = 20
"""Shortest response, in tokens, whose speed is shown."""
_END: Final = "[DONE]"


class NoChatModel(OperatorError):
    """The server has no chat model."""


@dataclass(frozen=True)
class Piece:
    """Part of a response: text, reasoning, or a note on what the request is waiting for."""

    kind: Literal["text", "thought", "note"]
    text: str


@dataclass
class Answer:
    """Response as far as it has arrived."""

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    """OpenAI usage object; empty until the response has ended."""
    first_seconds: float | None = None
    """Time from the request to the first text or reasoning."""
    writing_seconds: float = 0
    """Time from the first text to the last."""

    @property
    def tokens(self) -> int | None:
        """Tokens of the response, reasoning included; None until it has ended."""
        return self.usage.get("completion_tokens")

    @property
    def tokens_per_second(self) -> float | None:
        """Generation speed after the first token; None if the response is too short to measure."""
        if self.tokens is None or self.tokens < MEASURABLE_TOKENS or self.writing_seconds < MEASURABLE_SECONDS:
            return None
        return (self.tokens - 1) / self.writing_seconds

    def pieces(self, server: Server, request: Mapping[str, Any]) -> Generator[Piece, None, None]:
        """Send the request, and yield pieces of the response. Closing the iterator disconnects, which stops generation.

        Raise NoServer or Refused, even in the middle of a response.
        """
        sent = time.perf_counter()
        with closing(server.events(CHAT_PATH, streamed(request))) as events:
            for event in events:
                if event.name == "comment":
                    if event.data.startswith("{"):  # other comments may come from a proxy
                        yield Piece("note", in_words(event.json()))
                elif event.data == _END:
                    return
                else:
                    yield from self._read(event.json(), sent)
        raise NoServer("the server stopped before the response was complete; see its log")

    def _read(self, chunk: Mapping[str, Any], sent: float) -> Iterator[Piece]:
        if error := chunk.get("error"):
            raise Refused(str(error.get("message")), status=HTTPStatus.OK, code=error.get("code"))
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if thought := delta.get("reasoning_content"):
                yield self._timed(Piece("thought", thought), sent)
            if text := delta.get("content"):
                self.text += text
                yield self._timed(Piece("text", text), sent)

    def _timed(self, piece: Piece, sent: float) -> Piece:
        elapsed = time.perf_counter() - sent
        if self.first_seconds is None:
            self.first_seconds = elapsed
        self.writing_seconds = elapsed - self.first_seconds
        return piece


def in_words(aside: Mapping[str, Any]) -> str:  # noqa: PLR0911  # one for each state
    """Return the content of a stream comment as a sentence; empty if it is unknown."""
    if places := aside.get("relaxed"):
        return f"not enforced: {', '.join(places)}"
    progress = aside.get("progress") or {}
    model, position, step = progress.get("model"), progress.get("position"), progress.get("step")
    done, total = progress.get("done", 0), progress.get("total", 0)
    at = f" at {progress['at']}" if progress.get("at") else ""
    match progress.get("state"):
        case "queued":
            return f"queued for {model}{at}: position {position}"
        case "memory":
            return f"{model} is queued for memory: position {position}, {readable(done)} of {readable(total)} in use"
        case "loading":
            share = f" {100 * done // total} %" if total else ""
            return f"loading {model}{at}: {step}{share}" if step else f"loading {model}{at}"
        case "prompt":
            return f"reading the prompt: {done} of {total} tokens"
        case "sound":
            return f"transcribed {done} of {total} s"
        case _:
            return f"waiting for {model}{at}" if model else ""


def chat_models(server: Server) -> list[str]:
    """Return the ids of the server's chat models, in manifest order."""
    return [model["id"] for model in server.get("/v1/models")["data"] if _chats(model)]


def first_chat_model(server: Server) -> str:
    """Return the default model: a loaded one, otherwise `demo`, otherwise the first.

    Raise NoChatModel if there is none.
    """
    models = [model for model in server.get("/v1/models")["data"] if _chats(model)]
    # sorting is stable, so the order is otherwise the manifest's
    models.sort(key=lambda model: (model.get("state") != "ready", model["id"] != "demo"))
    if models:
        return str(models[0]["id"])
    raise NoChatModel(
        f"the server on {server.address} has no chat model; add one to the `chat` section of its manifest"
    )


def check_model(server: Server, name: str) -> None:
    """Raise Refused if the server has no such model, or NoChatModel if it is not a chat model."""
    model = server.get(f"/v1/models/{urllib.parse.quote(name)}")
    if not _chats(model):
        raise NoChatModel(f"{name} is a {model['kind']} model; chat models are: {', '.join(chat_models(server))}")


def _chats(model: Mapping[str, Any]) -> bool:
    """Return whether it is a chat model. Servers other than localapi do not report the kind of a model."""
    return bool(model.get("kind", CHAT.name) == CHAT.name)


def summary(answer: Answer) -> str:
    """Return the response's figures in one line; empty if nothing arrived."""
    parts = []
    if answer.first_seconds is not None:
        parts.append(f"{answer.first_seconds:.2f} s to the first token")
    if (speed := answer.tokens_per_second) is not None:
        parts.append(f"{speed:.1f} tokens/s")
    if answer.tokens is not None:
        parts.append(f"{answer.tokens} token{'s' * (answer.tokens != 1)}")
    thinking = (answer.usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    if thinking:
        parts[-1] += f", {thinking} of them reasoning"
    if answer.finish_reason == "length":
        parts.append("cut off: max_tokens reached, or context full")
    return " · ".join(parts)
