r"""Tool calls of earlier turns, in the forms that chat templates accept.

In OpenAI's API the arguments of a call are a string, which is what the model wrote: it may be cut off, contain `\d`,
or be JSON of something other than an object. Clients send it back unchanged. Most templates expect an object and write
the JSON themselves; some iterate over its items; some join a string. Mistral's require ids of nine letters and digits.
The only way to find out which form a template accepts is to try.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from localapi.worker.llm.output.call_ids import NineCharacters
from localapi.worker.llm.output.sections import encodable

Message = dict[str, Any]
WRAPPED: Final = "arguments"
"""The name of the only member of an object that wraps text for a template that needs an object."""


def expected(call: dict[str, Any]) -> dict[str, Any]:
    """Return the call with its arguments as an object, or as the text that they are if it is not that of an object."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if arguments is None or isinstance(arguments, str):
        return {**call, "function": {**function, "arguments": _object(arguments or "")}}
    return call


def forms(messages: list[Message]) -> Iterator[list[Message]]:
    """Yield the messages, and then with their calls in the other forms; the best comes first."""
    yield messages
    if not any(message.get("tool_calls") for message in messages):
        return
    wrapped = _changed(messages, _wrap)
    short = _with_short_ids(messages)
    texts = (_changed(messages, _as_text), _changed(wrapped, _as_text))
    for other in (wrapped, short, _with_short_ids(wrapped), *texts):
        if other != messages:
            yield other


def loses_arguments(messages: list[Message], text: str) -> bool:
    """Return True if a prompt made of these messages has not all arguments that are text: a template skipped them."""
    for message in messages:
        for call in message.get("tool_calls") or ():
            arguments = call["function"]["arguments"]
            if isinstance(arguments, str) and not any(written in text for written in _spellings(arguments.strip())):
                return True
    return False


def _spellings(text: str) -> tuple[str, ...]:
    """Return the text as it is, and as it is written inside of JSON."""
    return text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]


def _object(arguments: str) -> dict[str, Any] | str:
    if arguments.strip() in ("", "null"):
        return {}
    try:
        value = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    # Half of a surrogate pair has an escape in JSON, and none in a prompt.
    if isinstance(value, dict) and encodable(json.dumps(value, ensure_ascii=False)):
        return value
    return arguments


def _wrap(arguments: object) -> object:
    return {WRAPPED: arguments} if isinstance(arguments, str) else arguments


def _as_text(arguments: object) -> object:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _changed(messages: list[Message], change: Callable[[object], object]) -> list[Message]:
    """Return the messages with the arguments of all calls changed."""

    def call_changed(call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        return {**call, "function": {**function, "arguments": change(function["arguments"])}}

    changed = [dict(message) for message in messages]
    for message in changed:
        calls = message.get("tool_calls")
        if calls:
            message["tool_calls"] = [call_changed(call) for call in calls]
    return changed


def _with_short_ids(messages: list[Message]) -> list[Message]:
    """Give each call, and the results that name it, an id of nine letters and digits; those that have one keep it."""
    changed = [dict(message) for message in messages]
    for message in changed:
        calls = message.get("tool_calls")
        if calls:
            message["tool_calls"] = [{**call, "id": _short(call.get("id"))} for call in calls]
        if "tool_call_id" in message:
            message["tool_call_id"] = _short(message["tool_call_id"])
    return changed


def _short(call_id: object) -> str:
    return NineCharacters().fitting(str(call_id), "", 0)
