"""Stored responses as clients see them: input items, chains of responses, references, streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from localapi.api.openai.responses.items import InputItem
from localapi.api.openai.responses.reply import ID
from localapi.api.openai.responses.store import Record, ResponseStore
from localapi.errors import InvalidRequest, NotFound

MOST_LINKS: Final = 10_000
"""Maximum number of responses in a chain."""
_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
_ITEMS: Final[TypeAdapter[list[InputItem]]] = TypeAdapter(list[InputItem])
_TOKEN_DIGITS: Final = 32


class ItemsQuery(BaseModel):
    """Part of a response's input to return."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


class StreamQuery(BaseModel):
    """Form in which to return a response."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    stream: bool = False
    starting_after: Annotated[int, Field(ge=-1)] = -1


def input_of(given: object, response_id: str) -> list[dict[str, Any]]:
    """Return the input of a request as it is stored: items with ids, and texts as message parts."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    token = response_id.removeprefix(ID)
    items: list[dict[str, Any]] = []
    for at, item in enumerate(given if isinstance(given, list) else ()):
        kind = item.get("type") or "message"
        kept = {"id": f"{_PREFIXES.get(kind, 'item')}_{token}i{at:04x}", "type": kind}
        kept |= {key: value for key, value in item.items() if value is not None}
        if kind == "message":
            kept |= {"status": "completed", "content": _content(item)}
        items.append(kept)
    return items


def _content(message: Mapping[str, Any]) -> Any:
    content = message.get("content")
    if not isinstance(content, str):
        return content
    if message.get("role") == "assistant":
        return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": content}]


async def found(store: ResponseStore, response_id: str, owner: str | None) -> Record:
    """Return a response that was created with this key. Raise NotFound."""
    record = await store.get(response_id, owner)
    if record is None:
        raise NotFound(
            f"There is no response with the id {response_id[:100]!r}. It was not stored, was deleted, or has expired "
            f"(server.responses in the manifest)."
        )
    return record


async def history(store: ResponseStore, response_id: str | None, owner: str | None) -> list[InputItem]:
    """Return the items of a response and of those that it continues. Raise InvalidRequest if one is missing."""
    links: list[Record] = []
    while response_id is not None:
        record = await store.get(response_id, owner) if len(links) < MOST_LINKS else None
        if record is None or record.response["status"] in ("queued", "in_progress"):
            what = f"The response {response_id[:100]!r} is not stored here" if record is None else "It is not complete"
            raise InvalidRequest(
                f"{what}, so nothing can continue it. Send its items as input.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        links.append(record)
        response_id = record.previous
    items = [item for record in reversed(links) for item in record.items]
    return _ITEMS.validate_python(items)


async def with_references(store: ResponseStore, given: object, owner: str | None) -> object:
    """Return a request's input with the stored items that it refers to by id."""
    if not isinstance(given, list):
        return given
    return [await _referred(store, item, owner) for item in given]


async def _referred(store: ResponseStore, item: object, owner: str | None) -> object:
    """Return the item to which a reference refers; anything else unchanged."""
    if not isinstance(item, dict) or item.get("role") is not None or not isinstance(item.get("id"), str):
        return item
    if item.get("type") not in (None, "item_reference"):
        return item
    token = item["id"].partition("_")[2][:_TOKEN_DIGITS]
    record = await store.get(f"{ID}{token}", owner)
    return next((each for each in record.items if each.get("id") == item["id"]), item) if record else item


def page_of(items: Sequence[dict[str, Any]], query: ItemsQuery) -> tuple[list[dict[str, Any]], bool]:
    """Return the requested part of a response's input, and whether there is more."""
    ordered = list(items) if query.order == "asc" else list(reversed(items))
    ids = [item["id"] for item in ordered]
    if query.after is not None:
        if query.after not in ids:
            raise InvalidRequest(f"The response has no item {query.after[:100]!r}.", param="after")
        ordered = ordered[ids.index(query.after) + 1 :]
    return ordered[: query.limit], len(ordered) > query.limit


def replayed(response: Mapping[str, Any], after: int) -> Iterator[dict[str, Any]]:
    """Yield a stored response as events: each item as a whole, then the end."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    begun |= {"error": None, "incomplete_details": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for at, item in enumerate(response["output"]):
        for step in ("added", "done"):
            events.append({"type": f"response.output_item.{step}", "output_index": at, "item": item})
    for number, event in enumerate(events):
        if number > after:
            yield {**event, "sequence_number": number}
    ending = response["status"] if response["status"] in ("completed", "incomplete") else "failed"
    yield {"type": f"response.{ending}", "sequence_number": max(len(events), after + 1), "response": response}
