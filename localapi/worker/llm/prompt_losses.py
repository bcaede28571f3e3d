"""Find what a chat template drops from a conversation, and write the messages in a form that it keeps.

Templates silently drop what they do not expect: a system message that is not the first, a call with text, earlier
reasoning. The only way to find out is to render the messages with a text that occurs nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, Final

from localapi.worker.llm import call_history
from localapi.worker.llm.generic_tools import result_as_text
from localapi.worker.llm.output.formats import Spelling

Message = dict[str, Any]
Render = Callable[[list[Message]], str]
_SENTINEL: Final = "sentinelq{}z"
"""Letters and digits, which no template escapes."""
_INSTRUCTIONS: Final = ("system", "developer")


def forms(messages: list[Message], spelling: Spelling | None) -> Iterator[list[Message]]:
    """Yield the messages, then the same messages in other forms; the best comes first.

    `spelling` is how the model writes calls, for templates that do not write them.
    """
    seen: list[list[Message]] = []
    for instructed in _with_instructions(messages):
        for base in (
            instructed,
            _joined(instructed),
            _one_by_one(instructed),
            _without_empty_content(instructed),
            _apart(instructed),
            _one_by_one(_apart(instructed)),
            _spelled(instructed, spelling),
            *_with_results_as_text(instructed),
            *_with_results_as_text(_spelled(instructed, spelling)),
        ):
            for form in call_history.forms(base):
                if form not in seen:
                    seen.append(form)
                    yield form


def lost(messages: list[Message], text: str, render: Render, *, also: frozenset[str] = frozenset()) -> list[int]:
    """Return the numbers of the messages whose text or calls the template drops from `text`.

    `render` renders the messages. `also` are further roles to check, besides instructions, results, calls, and text
    with calls.
    """
    marked = list(messages)
    wanted: dict[str, int] = {}
    for at, message in enumerate(messages):
        content = message.get("content")
        calls = message.get("tool_calls") or ()
        checked = message["role"] in (*_INSTRUCTIONS, "tool") or bool(calls) or message["role"] in also
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
    except Exception:  # a template that is particular about names or texts: its output cannot be checked
        return []
    return sorted({at for mark, at in wanted.items() if mark not in found})


def losses(
    messages: Sequence[Message], form: list[Message], text: str, render: Render
) -> tuple[tuple[bool, bool, int], str]:
    """Return how much a form of the messages loses, and why it cannot be sent; empty if it can.

    The loss is for comparison with other forms. `text` is the template's output for the form.
    """
    spelled = has_calls(messages) and not has_calls(form)
    told = sum(each["role"] == "tool" for each in form) < sum(each["role"] == "tool" for each in messages)
    moved = told or (_instructions(messages) and not _instructions(form))
    also = {role for role, is_in_text in (("assistant", spelled), ("user", moved)) if is_in_text}
    numbers = lost(form, text, render, also=frozenset(also))
    dropped = [at for at in numbers if form[at]["role"] in (*_INSTRUCTIONS, *({"user"} & also))]
    problem = ""
    if dropped and _instructions(messages):
        at = _instructions(messages)[-1]
        problem = (
            f"The model's chat template drops the message of role {messages[at]['role']} at messages[{at}]. "
            "Put its text into a user message."
        )
    elif dropped or any(form[at]["role"] == "tool" for at in numbers):
        problem = "The model's chat template drops tool results. Send them as text."
    elif spelled and numbers:
        problem = "The model's chat template drops tool calls. Send them as text."
    return (bool(problem), call_history.loses_arguments(form, text), len(numbers)), problem


def _instructions(messages: Sequence[Message]) -> list[int]:
    return [at for at, message in enumerate(messages) if message["role"] in _INSTRUCTIONS]


def has_calls(messages: Sequence[Message]) -> bool:
    """Return True if a message has calls."""
    return any(message.get("tool_calls") for message in messages)


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
    """Return the messages with no content, rather than empty content, for calls, as DeepSeek V3 requires."""
    return [
        {**message, "content": None} if message.get("tool_calls") and not message.get("content") else message
        for message in messages
    ]


def _apart(messages: list[Message]) -> list[Message]:
    """Return the messages with the text of calls in a separate message."""
    found: list[Message] = []
    for message in messages:
        if message.get("tool_calls") and message.get("content"):
            text = {key: value for key, value in message.items() if key != "tool_calls"}
            calls = {key: value for key, value in message.items() if key not in ("reasoning_content", "thinking")}
            found += [text, {**calls, "content": None}]
        else:
            found.append(message)
    return _without_empty_content(found)


def _joined(messages: list[Message]) -> list[Message]:
    """Return the messages with consecutive ones of the same role merged, for templates whose roles must alternate."""
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else message
        texts = before.get("content"), message.get("content")
        is_next = bool(found) and message["role"] == before["role"] in ("user", "assistant")
        if is_next and not before.get("tool_calls") and all(isinstance(text, str) for text in texts):
            text = "\n\n".join(text for text in texts if text)
            found[-1] = {**before, **message, "content": text}
        else:
            found.append(message)
    return found


def _one_by_one(messages: list[Message]) -> list[Message]:
    """Return the messages with each of several calls in a separate message, followed by its result.

    gpt-oss calls one function at a time, and its template drops the others.
    """
    found: list[Message] = []
    results: list[Message] = []
    for at, message in enumerate(messages):
        calls = message.get("tool_calls") or ()
        if len(calls) > 1:
            results = list(takewhile(lambda each: each["role"] == "tool", messages[at + 1 :]))
            for number, call in enumerate(calls):
                first = message if number == 0 else {"role": "assistant", "content": ""}
                found.append({**first, "tool_calls": [call]})
                found += [result for result in results if result.get("tool_call_id") == call.get("id")]
        elif not any(message is result for result in results) or message not in found:
            found.append(message)
    return found


def _with_results_as_text(messages: list[Message]) -> Iterator[list[Message]]:
    """Yield the messages with results of calls that are not there, and then with all results, in the user's words."""
    names: dict[Any, str] = {}
    orphans, results = list(messages), list(messages)
    for at, message in enumerate(messages):
        names |= {call.get("id"): call["function"]["name"] for call in message.get("tool_calls") or ()}
        if message["role"] == "tool":
            results[at] = result_as_text(message, names)
            if message.get("tool_call_id") not in names:
                orphans[at] = results[at]
    for found in (orphans, results):
        yield found
        yield _joined(found)


def _spelled(messages: list[Message], spelling: Spelling | None) -> list[Message]:
    """Return the messages with calls as the text that the model writes, if their arguments can be written so."""
    if spelling is None:
        return messages
    found: list[Message] = []
    for message in messages:
        calls = message.get("tool_calls")
        if not calls:
            found.append(message)
            continue
        written = []
        for call in calls:
            text = _arguments(call["function"]["arguments"], spelling)
            if text is None:
                return messages
            head = spelling.head.replace("{name}", call["function"]["name"])
            written.append((head + text + spelling.tail).replace("{id}", str(call.get("id"))))
        text = spelling.start + (spelling.between or "").join(written) + spelling.end
        rest = {key: value for key, value in message.items() if key != "tool_calls"}
        content = message.get("content") or ""
        is_text = isinstance(content, str)  # otherwise its parts
        found.append({**rest, "content": content + text if is_text else [*content, {"type": "text", "text": text}]})
    return found


def _arguments(arguments: Any, spelling: Spelling) -> str | None:
    """Return the arguments of a call in the model's syntax; None if they cannot be written in it."""
    if spelling.argument is None and spelling.arguments == "json":
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if spelling.arguments == "gemma" or spelling.nested:
        return None
    if not isinstance(arguments, dict):
        arguments = {call_history.WRAPPED: arguments}
    if spelling.argument is None:
        return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    opening, closing = spelling.argument
    parts = []
    for key, value in arguments.items():
        is_text = isinstance(value, str)
        parts.append(opening.replace("{key}", key).replace("{text}", "true" if is_text else "false"))
        parts.append(value if is_text else json.dumps(value, ensure_ascii=False))
        parts.append(closing)
    return "".join(parts)
