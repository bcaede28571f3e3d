"""Tools for a model whose chat template has none: a system message explains them, and calls are JSON.

The same text describes how a response calls them, so `formats.GENERIC` reads it and spells forced calls.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from localapi.worker.llm.output.formats import FORMATS, GENERIC, Spelling

_FUNCTIONS: Final = """You can call these functions. Each line describes one in JSON:
{tools}

{how}
The results follow in the next message. If no function is needed, answer in plain text."""
_AS_JSON: Final = """To call functions, answer with nothing but a JSON list of calls:
[{"name": "function name", "arguments": {"argument name": "value"}}]"""
_AS_TRAINED: Final = """To call a function, write:
{call}"""

Message = dict[str, Any]


def explained(messages: Sequence[Message], tools: Sequence[dict[str, Any]], spelling: Spelling) -> list[Message]:
    """Return the messages with the tools explained in the system message.

    `spelling` is the model's own form of calls, if it was trained on one that its template does not show.
    """
    if not tools:
        return list(messages)
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    is_generic = spelling == FORMATS[GENERIC].spelling
    how = _AS_JSON if is_generic else _AS_TRAINED.format(call=_example(spelling))
    text = _FUNCTIONS.format(tools=lines, how=how)
    if messages and messages[0]["role"] in ("system", "developer"):
        first = messages[0]
        return [{**first, "content": f"{first['content']}\n\n{text}".strip()}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def as_text(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with earlier calls and results as text, in the form that `explained` describes."""
    names = {call.get("id"): call["function"]["name"] for each in messages for call in each.get("tool_calls") or ()}
    return [_as_text(message, names) for message in messages]


def _example(spelling: Spelling) -> str:
    """Return a call with words in place of its parts."""
    if spelling.argument is not None:
        opening, closing = spelling.argument
        opening = opening.replace("{text}", "true")
        arguments = opening.replace("{key}", "argument_name") + "value" + closing
    else:
        arguments = {"json": '{"argument_name": "value"}', "python": 'argument_name="value"'}.get(
            spelling.arguments, "{argument_name:value}"
        )
    call = spelling.start + spelling.head + arguments + spelling.tail + spelling.end
    return call.replace("{name}", "function_name").replace("{id}", "0")


def result_as_text(message: Message, names: dict[Any, str]) -> Message:
    """Return the result of a call as a message of the user. `names`: the called functions, by the calls' ids."""
    name = names.get(message.get("tool_call_id"), "the function")
    return {"role": "user", "content": f"Result of {name}:\n{message['content']}"}


def _as_text(message: Message, names: dict[Any, str]) -> Message:
    if message["role"] == "tool":
        return result_as_text(message, names)
    calls = message.get("tool_calls")
    if not calls:
        return message
    functions = [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in calls]
    parts = [message["content"], json.dumps(functions, ensure_ascii=False)]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(part for part in parts if part)}
