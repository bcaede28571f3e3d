"""What chat templates leave out of a conversation, and other ways to write the messages that they do not.

Templates drop silently what they do not expect: a system message that is not the first, a call beside text, an earlier
reasoning. The only way to find out is to render the messages with a text in the place that occurs nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from localapi.worker.llm import call_history

Message = dict[str, Any]
Render = Callable[[list[Message]], str]
_SENTINEL: Final = "sentinelq{}z"
"""Letters and digits, which no template escapes."""
_INSTRUCTIONS: Final = ("system", "developer")


def forms(messages: list[Message]) -> Iterator[list[Message]]:
    """Yield the messages, and then the same in other forms; the best comes first."""
    seen: list[list[Message]] = []
    for instructed in _with_instructions(messages):
        for base in (instructed, _without_empty_content(instructed), _apart(instructed)):
            for form in call_history.forms(base):
                if form not in seen:
                    seen.append(form)
                    yield form


def lost(messages: list[Message], text: str, render: Render) -> list[int]:
    """Return the numbers of the messages whose text or calls the template leaves out of `text`.

    `render`: renders the messages. Only instructions, calls, and text beside calls are looked for.
    """
    marked = list(messages)
    wanted: dict[str, int] = {}
    for at, message in enumerate(messages):
        content = message.get("content")
        calls = message.get("tool_calls") or ()
        checked = message["role"] in _INSTRUCTIONS or bool(calls)
        if checked and isinstance(content, str) and content.strip() and content.strip() not in text:
            mark = _SENTINEL.format(f"{at}t")
            marked[at] = {**marked[at], "content": mark}
            wanted[mark] = at
        if calls:
            renamed = []
            for number, call in enumerate(calls):
                mark = _SENTINEL.format(f"{at}c{number}")
                renamed.append({**call, "function": {**call["function"], "name": mark}})
                wanted[mark] = at
            marked[at] = {**marked[at], "tool_calls": renamed}
    if not wanted:
        return []
    try:
        found = render(marked)
    except Exception:  # a template that is particular about names or texts: what it writes cannot be told
        return []
    return sorted({at for mark, at in wanted.items() if mark not in found})


def refusal(messages: Sequence[Message], numbers: Sequence[int]) -> str:
    """Return why the messages cannot be sent without those that are left out; empty if they can."""
    for at in numbers:
        role = messages[at]["role"]
        if role in _INSTRUCTIONS:
            return (
                f"The model's chat template leaves out the message of role {role} at messages[{at}]. "
                "Put its text into the first message or into a user message."
            )
    return ""


def _with_instructions(messages: list[Message]) -> Iterator[list[Message]]:
    """Yield the messages, then with all instructions in the first message, then with them in a user's message."""
    yield messages
    instructions = [message for message in messages if message["role"] in _INSTRUCTIONS]
    if not instructions:
        return
    rest = [message for message in messages if message["role"] not in _INSTRUCTIONS]
    text = "\n\n".join(str(message["content"]) for message in instructions)
    if not rest:
        yield [{"role": "user", "content": text}]
        return
    merged = [{"role": "system", "content": text}, *rest]
    if merged != messages:
        yield merged
    first = rest[0]
    if first["role"] == "user":
        yield [{**first, "content": f"{text}\n\n{first['content']}"}, *rest[1:]]
    else:
        yield [{"role": "user", "content": text}, *rest]


def _without_empty_content(messages: list[Message]) -> list[Message]:
    """Return the messages with no content, rather than empty content, beside calls: DeepSeek V3 asks for that."""
    return [
        {**message, "content": None} if message.get("tool_calls") and not message.get("content") else message
        for message in messages
    ]


def _apart(messages: list[Message]) -> list[Message]:
    """Return the messages with the text beside calls in a message of its own."""
    found: list[Message] = []
    for message in messages:
        if message.get("tool_calls") and message.get("content"):
            text = {key: value for key, value in message.items() if key != "tool_calls"}
            calls = {key: value for key, value in message.items() if key not in ("reasoning_content", "thinking")}
            found += [text, {**calls, "content": None}]
        else:
            found.append(message)
    return _without_empty_content(found)
