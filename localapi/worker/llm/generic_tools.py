"""Tools for a model whose chat template has none: a system message explains them, and calls are JSON.

The same text says how an answer calls, so `formats.GENERIC` reads it and spells forced calls.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

_INTRODUCTION: Final = """You can call these functions. Each line describes one in JSON:
{tools}

To call functions, answer with nothing but a JSON list of calls:
[{{"name": "function name", "arguments": {{"argument name": "value"}}}}]
The results follow in the next message. If no function is needed, answer in plain text."""

Message = dict[str, Any]


def explained(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """Return the messages with the tools explained in the system message, and earlier calls and results as text."""
    names = {call.get("id"): call["function"]["name"] for each in messages for call in each.get("tool_calls") or ()}
    written = [_as_text(message, names) for message in messages]
    if not tools:
        return written
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    text = _INTRODUCTION.format(tools=lines)
    if written and written[0]["role"] in ("system", "developer"):
        first = written[0]
        return [{**first, "content": f"{first['content']}\n\n{text}".strip()}, *written[1:]]
    return [{"role": "system", "content": text}, *written]


def _as_text(message: Message, names: dict[Any, str]) -> Message:
    if message["role"] == "tool":
        name = names.get(message.get("tool_call_id"), "the function")
        return {"role": "user", "content": f"Result of {name}:\n{message['content']}"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    functions = [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in calls]
    parts = [message["content"], json.dumps(functions, ensure_ascii=False)]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(part for part in parts if part)}
