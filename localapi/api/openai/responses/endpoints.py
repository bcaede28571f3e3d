"""`/v1/responses`: create one, and read, end or delete those that are kept."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct
from quart import Blueprint, Response

from localapi.api.dialect import ApiBlueprint, Exchange
from localapi.api.openai.responses.reply import ResponsesReply
from localapi.api.openai.responses.request import InputTokensRequest, ResponsesRequest, parse_response
from localapi.api.openai.responses.wire import ResponseObject
from localapi.api.openai.wire import error_body
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, Operation, Operations
from localapi.http import body
from localapi.http.generation import begin
from localapi.http.replies import json_reply
from localapi.kinds.chat import CHAT, chat_options
from localapi.runtime.registry import Registry

PATH: Final = "/v1/responses"


class InputTokens(Struct, kw_only=True):
    """How many tokens the prompt of a conversation has."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


def routes(registry: Registry) -> Blueprint:
    """Return the endpoints."""
    blueprint = ApiBlueprint("responses", error_body)

    async def exchange_of(shape: type[InputTokensRequest]) -> Exchange:
        content: dict[str, Any] = await body.read_object()
        request, neutral = parse_response(shape, content)
        neutral.check()
        entry = registry.resolve(request.model, CHAT)
        reply = ResponsesReply(request, content, chat_options(entry.options))
        return Exchange(begin(registry, request.model, CHAT), neutral, reply)

    @blueprint.post(PATH)
    async def create() -> Response:
        exchange = await exchange_of(ResponsesRequest)
        with exchange.request.in_words_of_client():
            return await exchange.response()

    @blueprint.post(f"{PATH}/input_tokens")
    async def input_tokens() -> Response:
        exchange = await exchange_of(InputTokensRequest)
        with exchange.request.in_words_of_client():
            tokens = await exchange.prompt_tokens()
        return exchange.named(json_reply(InputTokens(input_tokens=len(tokens))))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("POST", PATH): Operation(
        summary="A response: the answer to a conversation, as items.",
        content={JSON: ResponseObject, EVENTS: None},
        body=ResponsesRequest,
        example={"input": "Hello!"},
        errors=ERRORS_OF_WORK,
    ),
    ("POST", f"{PATH}/input_tokens"): Operation(
        summary="The number of tokens that a response's prompt has.",
        content={JSON: InputTokens},
        body=InputTokensRequest,
        example={"input": "Hello!"},
        errors=ERRORS_OF_WORK,
    ),
}
