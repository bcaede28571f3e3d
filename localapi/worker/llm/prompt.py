"""Turn a conversation into tokens: OpenAI's messages and tools, through the model's chat template.

This module knows templates and what they expect. It knows neither MLX nor sampling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from localapi.system.time_limit import TimeLimitExceeded, limited
from localapi.worker.llm import bounded_template, call_history
from localapi.worker.protocol import THINKING_LEVEL, THINKING_SWITCHES, Chat, Message

RENDER_SECONDS = 5.0
"""Time limit of a template. A conversation of a million tokens takes a fraction of a second."""
LONGEST_REASON = 300
"""Characters of a template's error that are shown."""
NO_TEMPLATE_NOTE = (
    'The tokenizer has no chat template, so messages are written as lines "User: ..." and "Assistant: ...", and '
    'an answer ends at the next "User:". A model trained for chat answers better.'
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_OF_ROLE = {"user": "User", "assistant": "Assistant", "tool": "Tool"}


class Rendering:
    """Render one request's prompts, with its tools and template variables. See `prompt_boundaries.Writer`."""

    def __init__(self, writer: PromptWriter, request: Chat, seconds: float) -> None:
        self._seconds = seconds
        self.messages = writer.messages(request)
        self._writer = writer
        self._request = request
        self._options = writer.options(request)

    def text(self, messages: list[dict[str, Any]], *, answer: bool) -> str:
        """Return the template's text for these messages. `answer`: up to where the answer begins."""
        return self._writer.templated(messages, self._request, self._options, prompt=answer, seconds=self._seconds)

    def encode(self, text: str) -> list[int]:
        """Return the text's tokens."""
        return self._writer.encode(text)


class PromptRefused(Exception):
    """The request has no valid prompt for this model. The message says why; `param` is the field at fault."""

    def __init__(self, message: str, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param


class TemplateTooSlow(PromptRefused):
    """The template took longer than its time limit."""


class PromptWriter:
    """Write one model's prompts."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer`: mlx-lm's TokenizerWrapper."""
        bounded_template.install()
        self._tokenizer = tokenizer
        self.has_template = bool(tokenizer.has_chat_template)
        self.stop: Sequence[str] = () if self.has_template else ("\nUser:",)
        """Stop strings that the format itself needs."""
        template = tokenizer.chat_template
        self._template = None if template is None else str(template)
        switched = any(map(self._knows, THINKING_SWITCHES))
        levels = self._knows(THINKING_LEVEL)
        self.thinking = {
            "thinking": bool(tokenizer.has_thinking) or switched or levels,
            "thinking_switch": switched,
            "thinking_levels": levels,
        }
        """What the template can be told about thinking, as in `Capabilities`."""

    def tokens(
        self, request: Chat, check: Callable[[str], None] | None = None, *, seconds: float = RENDER_SECONDS
    ) -> list[int]:
        """Return the prompt, ready for the answer. `check` may refuse its text.

        Raises PromptRefused and what `check` raises. Raises TemplateTooSlow if the template takes longer than
        `seconds`.
        """
        if not request.messages:
            raise PromptRefused("messages is empty. Send at least one message.")
        messages, options = self.messages(request), self.options(request)
        with _refusing(messages):
            text = (
                self.templated(messages, request, options, prompt=True, seconds=seconds)
                if self.has_template
                else _plain(messages, request)
            )
        if check is not None:
            check(text)
        with _refusing(messages):
            tokens = self.encode(text) if self.has_template else list(self._tokenizer.encode(text))
        if not tokens:
            raise PromptRefused("The messages give an empty prompt. Send some text.")
        return tokens

    def rendering(self, request: Chat, *, seconds: float = RENDER_SECONDS) -> Rendering | None:
        """Return a renderer of the request's prompt, to find where it can be split; None if there is no template."""
        return Rendering(self, request, seconds) if self.has_template else None

    def messages(self, request: Chat) -> list[dict[str, Any]]:
        """Return the messages as templates expect them."""
        return [self._message(message) for message in request.messages]

    def _message(self, message: Message) -> dict[str, Any]:
        """Return the message as templates expect it, in OpenAI's form with the content as text."""
        written: dict[str, Any] = {"role": message.role, "content": message.text}
        # Templates often drop messages silently whose role they do not name.
        if message.role == "developer" and self._template is not None and "developer" not in self._template:
            written["role"] = "system"
        if message.name is not None:
            written["name"] = message.name
        if message.reasoning is not None:
            written["reasoning_content"] = message.reasoning
        if message.call_id is not None:
            written["tool_call_id"] = message.call_id
        if message.calls:
            written["tool_calls"] = [
                call_history.expected(
                    {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                )
                for call in message.calls
            ]
        return written

    def options(self, request: Chat) -> dict[str, Any]:
        """Return the template's variables. Raises PromptRefused if the template does not support reasoning_effort."""
        options = dict(request.template_options)
        effort = options.get("reasoning_effort")
        if effort is not None and not self._knows("reasoning_effort"):
            del options["reasoning_effort"]
            if not any(map(self._knows, THINKING_SWITCHES)):
                if effort == "none" and not self._tokenizer.has_thinking:
                    return options
                raise PromptRefused(
                    "This model's chat template does not support reasoning_effort. Remove it.", "reasoning_effort"
                )
            options.setdefault("enable_thinking", effort != "none")
        return options

    def _knows(self, variable: str) -> bool:
        return self._template is not None and re.search(rf"\b{variable}\b", self._template) is not None

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text that the template wrote."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def templated(
        self, messages: list[dict[str, Any]], request: Chat, options: dict[str, Any], *, prompt: bool, seconds: float
    ) -> str:
        """Return the template's text for the messages. `prompt`: up to where the answer begins.

        Raises TemplateTooSlow.
        """
        tools = offered_tools(request)
        if tools and not self._tokenizer.has_tool_calling:
            raise PromptRefused("This model's chat template does not support tools. Remove them.", "tools")
        continues = prompt and request.continues

        def render(tools: list[dict[str, Any]], messages: list[dict[str, Any]]) -> str:
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    tools=tools or None,
                    add_generation_prompt=prompt and not continues,
                    continue_final_message=continues,
                    tokenize=False,
                    **options,
                )
            )

        try:
            return self._first_form(messages, partial(render, tools), seconds)
        except PromptRefused:
            raise
        except Exception:  # whatever a template raises
            # Some templates need the fields that OpenAI's API lets clients leave out. The others do not show them.
            described = [_described(tool) for tool in tools]
            if described == tools:
                raise
            return self._first_form(messages, partial(render, described), seconds)

    def _first_form(
        self, messages: list[dict[str, Any]], render: Callable[[list[dict[str, Any]]], str], seconds: float
    ) -> str:
        """Render the first form of the messages that the template accepts completely. Raises its first error."""
        incomplete: str | None = None
        refusal: Exception | None = None
        for form in call_history.forms(messages):
            try:
                text = limited(seconds, partial(render, form))
            except TimeLimitExceeded:
                raise TemplateTooSlow(
                    f"The model's chat template took longer than {seconds:g} s for these messages. Send fewer messages."
                ) from None
            except Exception as error:  # whatever a template raises
                refusal = refusal or error
                continue
            if not call_history.loses_arguments(messages, text):
                return text
            incomplete = incomplete or text
        if incomplete is None and refusal is not None:
            raise refusal
        return incomplete or ""


def offered_tools(request: Chat) -> list[dict[str, Any]]:
    """Return the tools that the model may call, as templates expect them: in OpenAI's form."""
    if request.tool_choice == "none":
        return []
    return [{"type": "function", "function": msgspec.to_builtins(tool)} for tool in request.tools]


@contextmanager
def _refusing(messages: list[dict[str, Any]]) -> Iterator[None]:
    """Turn errors of templates and tokenizers into PromptRefused, because they are about these messages."""
    try:
        yield
    except PromptRefused:
        raise
    except Exception as error:
        if _SURROGATE.search(json.dumps(messages, ensure_ascii=False, default=str)):
            raise PromptRefused("A message contains half of a surrogate pair, which is not a character.") from error
        reason = str(error)
        if len(reason) > LONGEST_REASON:  # transformers repeats the whole conversation in some
            reason = f"{reason[:LONGEST_REASON]}…"
        raise PromptRefused(f"The model's chat template refuses these messages: {reason}") from error


def _described(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the tool with all fields that it may do without."""
    function = {name: value for name, value in tool.get("function", {}).items() if value is not None}
    return {**tool, "function": {"description": "", "parameters": {"type": "object", "properties": {}}, **function}}


def _plain(messages: list[dict[str, Any]], request: Chat) -> str:
    """Return the prompt for a model without a template."""
    if offered_tools(request):
        raise PromptRefused("This model has no chat template, so it cannot use tools. Remove them.", "tools")
    lines = [_line(message) for message in messages]
    return "\n".join(lines if request.continues else [*lines, "Assistant:"])


def _line(message: dict[str, Any]) -> str:
    name = _LINE_OF_ROLE.get(message.get("role", ""))
    return f"{name}: {message['content']}" if name else str(message["content"])
