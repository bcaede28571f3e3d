"""A conversation to tokens: OpenAI's messages, through the model's chat template.

Knows templates and what they expect. Knows no MLX and no sampling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from localapi.worker.protocol import Chat

NO_TEMPLATE_NOTE = (
    'The tokenizer has no chat template: messages are written as "User: ..." and "Assistant: ...", one below the '
    'other, and an answer ends where the model writes the next "User:". A model trained for chat answers better.'
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_OF_ROLE = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


class PromptRefused(Exception):
    """The messages do not make a prompt for this model; the message says why, `param` which field."""

    def __init__(self, message: str, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param


class PromptWriter:
    """Writes one model's prompts."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is mlx-lm's TokenizerWrapper."""
        self._tokenizer = tokenizer
        self.has_template = bool(tokenizer.has_chat_template)
        self.stop: Sequence[str] = () if self.has_template else ("\nUser:",)
        """Stop strings that the format itself needs."""
        template = tokenizer.chat_template
        self._knows_developer = template is None or "developer" in str(template)

    def tokens(self, request: Chat) -> list[int]:
        """The prompt, ready for the answer. Raises PromptRefused."""
        if not request.messages:
            raise PromptRefused("messages is empty; send at least one message.")
        messages = [self._message(message, f"messages[{i}]") for i, message in enumerate(request.messages)]
        try:
            tokens = self._templated(messages) if self.has_template else self._plain(messages)
        except Exception as error:  # jinja2's errors, and what Python raises inside a template
            if _SURROGATE.search(json.dumps(messages, ensure_ascii=False, default=str)):
                raise PromptRefused("A message holds half of a surrogate pair, which is not a character.") from error
            raise PromptRefused(f"The model's chat template refuses these messages: {error}") from error
        if not tokens:
            raise PromptRefused("The messages make an empty prompt; send some text.")
        return tokens

    def _message(self, message: dict[str, Any], place: str) -> dict[str, Any]:
        """The message as templates expect it. The roles that a template does not name it would often drop silently."""
        written = {**message, "content": message.get("content") or ""}
        if written.get("role") == "developer" and not self._knows_developer:
            written["role"] = "system"
        if calls := message.get("tool_calls"):
            written["tool_calls"] = [_tool_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls)]
        return written

    def _templated(self, messages: list[dict[str, Any]]) -> list[int]:
        return list(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def _plain(self, messages: list[dict[str, Any]]) -> list[int]:
        lines = [_line(message) for message in messages]
        return list(self._tokenizer.encode("\n".join([*lines, "Assistant:"])))


def _line(message: dict[str, Any]) -> str:
    name = _LINE_OF_ROLE.get(message.get("role", ""))
    return f"{name}: {message['content']}" if name else str(message["content"])


def _tool_call(call: dict[str, Any], place: str) -> dict[str, Any]:
    """The call with its arguments as an object: OpenAI sends JSON in a string, and templates write JSON themselves."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    place = f"{place}.function.arguments"
    try:
        value = json.loads(arguments or "{}")
    except ValueError as error:
        raise PromptRefused(f"{place} is not JSON: {error}", place) from error
    return {**call, "function": {**function, "arguments": value}}
