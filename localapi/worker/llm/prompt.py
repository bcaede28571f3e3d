"""A conversation to tokens: OpenAI's messages and tools, through the model's chat template.

Knows templates and what they expect. Knows no MLX and no sampling.
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
from localapi.worker.protocol import Chat, Message

RENDER_SECONDS = 5.0
"""The longest that a template may take. A conversation of a million tokens takes a fraction of a second."""
LONGEST_REASON = 300
"""Characters of an error that a template raises."""
NO_TEMPLATE_NOTE = (
    'The tokenizer has no chat template: messages are written as "User: ..." and "Assistant: ...", one below the '
    'other, and an answer ends where the model writes the next "User:". A model trained for chat answers better.'
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_OF_ROLE = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
_THINKING_SWITCHES = ("enable_thinking", "thinking")


class Rendering:
    """One request's messages, tools and template variables, as text; see `prefix_cache.Writer`."""

    def __init__(self, writer: PromptWriter, request: Chat, seconds: float) -> None:
        self._seconds = seconds
        self.messages = writer.messages(request)
        self._writer = writer
        self._request = request
        self._options = writer.options(request)

    def text(self, messages: list[dict[str, Any]], *, answer: bool) -> str:
        """What the template makes of these messages; `answer`: up to where the answer begins."""
        return self._writer.templated(messages, self._request, self._options, prompt=answer, seconds=self._seconds)

    def encode(self, text: str) -> list[int]:
        """Its tokens."""
        return self._writer.encode(text)


class PromptRefused(Exception):
    """The messages do not make a prompt for this model; the message says why, `param` which field."""

    def __init__(self, message: str, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param


class TemplateTooSlow(PromptRefused):
    """The template did not come to its end in the time that it was given."""


class PromptWriter:
    """Writes one model's prompts."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is mlx-lm's TokenizerWrapper."""
        bounded_template.install()
        self._tokenizer = tokenizer
        self.has_template = bool(tokenizer.has_chat_template)
        self.stop: Sequence[str] = () if self.has_template else ("\nUser:",)
        """Stop strings that the format itself needs."""
        template = tokenizer.chat_template
        self._template = None if template is None else str(template)

    def tokens(
        self, request: Chat, check: Callable[[str], None] | None = None, *, seconds: float = RENDER_SECONDS
    ) -> list[int]:
        """The prompt, ready for the answer. `check` may refuse its text. Raises PromptRefused and what `check` does.

        Raises TemplateTooSlow if the template takes longer than `seconds`.
        """
        if not request.messages:
            raise PromptRefused("messages is empty; send at least one message.")
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
            raise PromptRefused("The messages make an empty prompt; send some text.")
        return tokens

    def conversation(self, messages: Sequence[Message], *, seconds: float = RENDER_SECONDS) -> list[int]:
        """The tokens of messages alone, as a request without tools would send them. Raises PromptRefused."""
        return self.tokens(Chat(id=0, messages=list(messages)), seconds=seconds)

    def rendering(self, request: Chat, *, seconds: float = RENDER_SECONDS) -> Rendering | None:
        """The request's prompt as text, for finding where it can be cut; None where there is no template."""
        return Rendering(self, request, seconds) if self.has_template else None

    def messages(self, request: Chat) -> list[dict[str, Any]]:
        """The messages as templates expect them."""
        return [self._message(message) for message in request.messages]

    def _message(self, message: Message) -> dict[str, Any]:
        """Return the message as templates expect it, in OpenAI's form with the content as text."""
        written: dict[str, Any] = {"role": message.role, "content": message.text}
        # A role that a template does not name it would often drop silently.
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
        """The template's variables. Raises PromptRefused for an effort that the template does not know."""
        options = dict(request.template_options)
        effort = options.get("reasoning_effort")
        if effort is not None and not self._knows("reasoning_effort"):
            del options["reasoning_effort"]
            if not any(map(self._knows, _THINKING_SWITCHES)):
                if effort == "none" and not self._tokenizer.has_thinking:
                    return options
                raise PromptRefused(
                    "This model's chat template knows no reasoning_effort. Leave it out.", "reasoning_effort"
                )
            options.setdefault("enable_thinking", effort != "none")
        return options

    def _knows(self, variable: str) -> bool:
        return self._template is not None and re.search(rf"\b{variable}\b", self._template) is not None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text that the template wrote."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def templated(
        self, messages: list[dict[str, Any]], request: Chat, options: dict[str, Any], *, prompt: bool, seconds: float
    ) -> str:
        """What the template makes of the messages. `prompt`: up to where the answer begins.

        Raises TemplateTooSlow.
        """
        tools = offered_tools(request)
        if tools and not self._tokenizer.has_tool_calling:
            raise PromptRefused("This model's chat template knows no tools. Leave them out.", "tools")
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
        """Render the first form of the messages that the template takes whole. Raises what it says to the first one."""
        incomplete: str | None = None
        refusal: Exception | None = None
        for form in call_history.forms(messages):
            try:
                text = limited(seconds, partial(render, form))
            except TimeLimitExceeded:
                raise TemplateTooSlow(
                    f"The model's chat template did not end within {seconds:g} s for these messages. Send fewer."
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
    """What templates and tokenizers raise is about these messages: jinja2's errors, and Python's own."""
    try:
        yield
    except PromptRefused:
        raise
    except Exception as error:
        if _SURROGATE.search(json.dumps(messages, ensure_ascii=False, default=str)):
            raise PromptRefused("A message holds half of a surrogate pair, which is not a character.") from error
        reason = str(error)
        if len(reason) > LONGEST_REASON:  # transformers repeats the whole conversation in some
            reason = f"{reason[:LONGEST_REASON]}…"
        raise PromptRefused(f"The model's chat template refuses these messages: {reason}") from error


def _described(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the tool with all fields that it may do without."""
    function = {name: value for name, value in tool.get("function", {}).items() if value is not None}
    return {**tool, "function": {"description": "", "parameters": {"type": "object", "properties": {}}, **function}}


def _plain(messages: list[dict[str, Any]], request: Chat) -> str:
    """The prompt for a model without a template."""
    if offered_tools(request):
        raise PromptRefused("This model has no chat template, and so no tools. Leave them out.", "tools")
    lines = [_line(message) for message in messages]
    return "\n".join(lines if request.continues else [*lines, "Assistant:"])


def _line(message: dict[str, Any]) -> str:
    name = _LINE_OF_ROLE.get(message.get("role", ""))
    return f"{name}: {message['content']}" if name else str(message["content"])
