"""`/v1/responses`: create a response, and read, follow, cancel or delete stored ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any, Final, Literal

from msgspec import Struct, to_builtins
from quart import Blueprint, Response, request

from localapi.api.dialect import ApiBlueprint, Exchange
from localapi.api.neutral_request import NeutralRequest
from localapi.api.openai.responses import stored_responses
from localapi.api.openai.responses.background import Background
from localapi.api.openai.responses.folder import Folder
from localapi.api.openai.responses.reply import ResponsesReply
from localapi.api.openai.responses.request import InputTokensRequest, ResponsesRequest, Shape, parse_response
from localapi.api.openai.responses.store import Record, ResponseStore
from localapi.api.openai.responses.truncation import fitting
from localapi.api.openai.responses.wire import ResponseObject
from localapi.api.openai.wire import DONE, error_body
from localapi.api.operation import ERRORS_OF_WORK, EVENTS, JSON, Operation, Operations, Schema
from localapi.errors import InvalidRequest
from localapi.http import body, request_context
from localapi.http.generation import begin
from localapi.http.replies import EVENT_STREAM, event, json_reply, streamed_reply
from localapi.kinds.chat import CHAT, chat_options
from localapi.manifest import ResponsesOptions
from localapi.runtime.registry import Registry
from localapi.system.folders import state_folder

PATH: Final = "/v1/responses"
ONE: Final = f"{PATH}/<response_id>"
RUNNING: Final = frozenset({"queued", "in_progress"})


class InputTokens(Struct, kw_only=True):
    """Number of tokens in the prompt of a conversation."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class DeletedResponse(Struct, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItems(Struct, kw_only=True):
    """Part of the input items of a response."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def routes(registry: Registry) -> Blueprint:
    """Return the endpoints."""
    return Responses(registry)


class Responses(ApiBlueprint):
    """Endpoints, with the stored responses and those that run in the background."""

    def __init__(self, registry: Registry) -> None:
        super().__init__("responses", error_body)
        self._registry = registry
        place = state_folder("responses")
        self._store = ResponseStore(None if place is None else Folder(place), self._options)
        self._background = Background()
        self.before_app_serving(self._store.start)
        self.after_app_serving(self._close)
        for path, method, endpoint in (
            (PATH, "POST", self.create),
            (f"{PATH}/input_tokens", "POST", self.count),
            (ONE, "GET", self.read),
            (ONE, "DELETE", self.remove),
            (f"{ONE}/cancel", "POST", self.cancel),
            (f"{ONE}/input_items", "GET", self.input_items),
        ):
            self.add_url_rule(path, f"{method} {path}", endpoint, methods=[method])

    async def create(self) -> Response:
        """Answer a conversation, whole or as events, or in the background."""
        content = await body.read_object()
        said, neutral = await self._asked(ResponsesRequest, content)
        entry = self._registry.resolve(said.model, CHAT)
        reply = ResponsesReply(said, content, chat_options(entry.options))
        reply.response.store = said.store and self._store.keeps
        if reply.response.store:
            items = stored_responses.input_of(content.get("input"), reply.response.id)
            reply.keep = partial(self._keep, _owner(), items)
        with neutral.in_words_of_client():
            if said.truncation == "auto":
                neutral = await fitting(neutral, lambda request: self._exchange(request, ResponsesReply(said)))
            exchange = self._exchange(neutral, reply)
            if not said.background:
                return await exchange.response()
            return await self._in_background(exchange, reply)

    async def count(self) -> Response:
        """Count the tokens of a conversation's prompt."""
        content = await body.read_object()
        said, neutral = await self._asked(InputTokensRequest, content)
        exchange = self._exchange(neutral, ResponsesReply(said, content))
        with neutral.in_words_of_client():
            tokens = await exchange.prompt_tokens()
        return exchange.named(json_reply(InputTokens(input_tokens=len(tokens))))

    async def read(self, response_id: str) -> Response:
        """Return a response, or its events from any number on."""
        query = body.parse(stored_responses.StreamQuery, dict(request.args))
        record = await stored_responses.found(self._store, response_id, _owner())
        run = self._background.get(response_id)
        if not query.stream:
            return json_reply(self._state(record))
        if run is not None and run.streamed:
            return streamed_reply(run.follow(query.starting_after), EVENT_STREAM)
        response = self._state(record)
        if response["status"] in RUNNING:
            raise InvalidRequest(
                "This response was not created with 'stream: true', so it has no events. Remove 'stream'.",
                param="stream",
            )
        return streamed_reply(_replay(response, query.starting_after), EVENT_STREAM)

    async def remove(self, response_id: str) -> Response:
        """Delete a response; if it is running, end it."""
        await stored_responses.found(self._store, response_id, _owner())
        run = self._background.get(response_id)
        if run is not None:
            await self._background.cancel(run)
        self._store.delete(response_id)
        return json_reply(DeletedResponse(id=response_id))

    async def cancel(self, response_id: str) -> Response:
        """End a response that runs in the background."""
        record = await stored_responses.found(self._store, response_id, _owner())
        if not record.response["background"]:
            raise InvalidRequest(
                "Only a response in the background can be cancelled. To end another one, close its connection."
            )
        run = self._background.get(response_id)
        if run is not None:
            await self._background.cancel(run)
        return json_reply(self._state(await stored_responses.found(self._store, response_id, _owner())))

    async def input_items(self, response_id: str) -> Response:
        """List the input items of a response."""
        query = body.parse(stored_responses.ItemsQuery, dict(request.args))
        record = await stored_responses.found(self._store, response_id, _owner())
        items, more = stored_responses.page_of(record.input, query)
        first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        return json_reply(InputItems(data=items, first_id=first, last_id=last, has_more=more))

    async def _asked(self, shape: type[Shape], content: dict[str, Any]) -> tuple[Shape, NeutralRequest]:
        """Return a request with everything that it refers to. Raise InvalidRequest."""
        owner = _owner()
        if "input" in content:
            content["input"] = await stored_responses.with_references(self._store, content["input"], owner)
        said, unknown = parse_response(shape, content)
        neutral = said.neutral(await stored_responses.history(self._store, said.previous_response_id, owner), unknown)
        neutral.check()
        return said, neutral

    def _exchange(self, neutral: NeutralRequest, reply: ResponsesReply) -> Exchange:
        return Exchange(begin(self._registry, neutral.model, CHAT), neutral, reply)

    async def _in_background(self, exchange: Exchange, reply: ResponsesReply) -> Response:
        if not self._store.keeps:
            raise InvalidRequest(
                "Responses in the background must be stored, but server.responses in the manifest disables storing. "
                "Remove 'background'.",
                param="background",
                code="unsupported_parameter",
            )
        self._background.check_room()
        exchange.expect()
        stream = exchange.request.stream
        run = self._background.start(lambda: self._exchange(exchange.request, reply), reply, streamed=stream)
        reply.keep(reply.response)
        if stream:
            return exchange.named(streamed_reply(run.follow(-1), EVENT_STREAM))
        return exchange.named(json_reply(reply.response))

    def _keep(self, owner: str | None, items: list[dict[str, Any]], response: ResponseObject) -> None:
        self._store.put(Record(owner, to_builtins(response), items))

    def _state(self, record: Record) -> dict[str, Any]:
        """Return a response in its current state."""
        run = self._background.get(record.id)
        if run is not None:
            state: dict[str, Any] = to_builtins(run.reply.response)
            return state
        if record.response["status"] not in RUNNING:
            return record.response
        error = {
            "code": "server_error",
            "message": "The server stopped before the response was complete. Send the request again.",
        }
        return {**record.response, "status": "failed", "error": error}

    def _options(self) -> ResponsesOptions:
        return self._registry.snapshot.manifest.server.responses

    async def _close(self) -> None:
        await self._background.close()
        await self._store.close()


def _owner() -> str | None:
    """Return who may read the responses of the current request."""
    key = request_context.current_key()
    return key.name if key else None


async def _replay(response: Mapping[str, Any], after: int) -> AsyncGenerator[bytes, None]:
    for each in stored_responses.replayed(response, after):
        yield event(each, name=each["type"])
    yield DONE


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


RESPONSE_ID: Final[Schema] = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Id of a stored response.",
    "example": "resp_00000000000000000000000000000000",
}
_MISSING: Final = frozenset({400, 404})
OPERATIONS: Final[Operations] = {
    ("POST", PATH): Operation(
        summary="Create a response to a conversation, as items.",
        content={JSON: ResponseObject, EVENTS: None},
        body=ResponsesRequest,
        example={"input": "Hello!"},
        errors=ERRORS_OF_WORK,
    ),
    ("POST", f"{PATH}/input_tokens"): Operation(
        summary="Count the tokens of a response's prompt.",
        content={JSON: InputTokens},
        body=InputTokensRequest,
        example={"input": "Hello!"},
        errors=ERRORS_OF_WORK,
    ),
    ("GET", f"{PATH}/{{id}}"): Operation(
        summary="Get a stored response, or its events.",
        content={JSON: ResponseObject, EVENTS: None},
        errors=_MISSING,
        parameters=(
            RESPONSE_ID,
            _query("stream", {"type": "boolean"}, "Send the response as events."),
            _query("starting_after", {"type": "integer", "minimum": -1}, "Skip the events up to this number."),
        ),
    ),
    ("DELETE", f"{PATH}/{{id}}"): Operation(
        summary="Delete a stored response.",
        content={JSON: DeletedResponse},
        errors=_MISSING,
        parameters=(RESPONSE_ID,),
    ),
    ("POST", f"{PATH}/{{id}}/cancel"): Operation(
        summary="End a response that runs in the background.",
        content={JSON: ResponseObject},
        errors=_MISSING,
        parameters=(RESPONSE_ID,),
    ),
    ("GET", f"{PATH}/{{id}}/input_items"): Operation(
        summary="List the input items of a stored response.",
        content={JSON: InputItems},
        errors=_MISSING,
        parameters=(
            RESPONSE_ID,
            _query(
                "limit", {"type": "integer", "minimum": 1, "maximum": 100}, "Maximum number of items; 20 by default."
            ),
            _query("order", {"enum": ["asc", "desc"]}, "Order; desc by default, with the last items first."),
            _query("after", {"type": "string"}, "Id of the item after which the page begins."),
        ),
    ),
}
