"""`POST /v1/tokenize` and `POST /v1/detokenize`: from text to a model's tokens, and back."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any, Final

from msgspec import Struct
from pydantic import BaseModel, Field
from quart import Blueprint, Response

from localapi.api.dialect import Exchange
from localapi.api.openai.chat import OpenAIChat
from localapi.api.openai.chat_request import Message
from localapi.api.openai.generation_request import MAX_NAME, TokenNumber, unknown_fields
from localapi.api.operation import ERRORS_OF_WORK, JSON, Operation, Operations
from localapi.errors import InvalidRequest
from localapi.http import body
from localapi.http.body import RequestBody
from localapi.http.generation import begin, request_ids
from localapi.http.replies import json_reply
from localapi.kinds import CHAT
from localapi.runtime.registry import Registry
from localapi.worker.protocol import Detokenize, DetokenizedText, Event, Tokenize, TokenizedText


class TokenizeRequest(RequestBody):
    """Text, or a conversation with everything that a chat request may contain: tools, options, a prefilled response."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    text: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = True


class DetokenizeRequest(RequestBody):
    """Tokens by id."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    tokens: list[TokenNumber]


class TokensReply(Struct):
    """The tokens of a text."""

    tokens: list[int]
    count: int


class TextReply(Struct):
    """The text of tokens."""

    text: str


def routes(registry: Registry) -> Blueprint:
    """Return both endpoints."""
    blueprint = Blueprint("tokens", __name__)

    @blueprint.post("/v1/tokenize")
    async def tokenize() -> Response:
        content = await body.read_object()
        request = body.parse(TokenizeRequest, content)
        if (request.text is None) == (request.messages is None):
            raise InvalidRequest("Give either 'text' or 'messages'.", param="text")
        if request.messages is not None:
            return await _tokens_of_chat(registry, content)
        ask = Tokenize(next(request_ids), request.text, None, request.add_special_tokens)
        reply = await _reply(registry, request.model, ask)
        tokens = reply.tokens if isinstance(reply, TokenizedText) else []
        return _named(request, content, json_reply(TokensReply(tokens, len(tokens))))

    @blueprint.post("/v1/detokenize")
    async def detokenize() -> Response:
        content = await body.read_object()
        request = body.parse(DetokenizeRequest, content)
        reply = await _reply(registry, request.model, Detokenize(next(request_ids), request.tokens))
        return _named(request, content, json_reply(TextReply(reply.text if isinstance(reply, DetokenizedText) else "")))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("POST", "/v1/tokenize"): Operation(
        summary="Convert text to tokens.",
        content={JSON: TokensReply},
        body=TokenizeRequest,
        example={"text": "Hello!"},
        errors=ERRORS_OF_WORK,
    ),
    ("POST", "/v1/detokenize"): Operation(
        summary="Convert tokens to text.",
        content={JSON: TextReply},
        body=DetokenizeRequest,
        example={"tokens": [72, 105]},
        errors=ERRORS_OF_WORK,
    ),
}


def _named(request: BaseModel, content: dict[str, Any], reply: Response) -> Response:
    return body.name_ignored(unknown_fields(request, content), reply)


async def _tokens_of_chat(registry: Registry, content: dict[str, Any]) -> Response:
    """Return the prompt of a chat request with this body."""
    chat = {name: value for name, value in content.items() if name != "add_special_tokens"}
    asked, reply = OpenAIChat().parse(chat)
    asked.check()
    with asked.in_words_of_client():
        exchange = Exchange(begin(registry, asked.model, CHAT), asked, reply)
        tokens = await exchange.prompt_tokens()
    return exchange.named(json_reply(TokensReply(tokens, len(tokens))))


async def _reply(registry: Registry, model: str, ask: Tokenize | Detokenize) -> Event | Any:
    """Return the single event of the reply."""
    async with aclosing(begin(registry, model, CHAT).events(lambda _: [ask])) as events:
        return await anext(events)
