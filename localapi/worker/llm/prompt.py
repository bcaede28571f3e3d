"""Turn a conversation into tokens: OpenAI's messages and tools, through the model's chat template.

This module knows templates and what they expect, but neither MLX nor sampling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any, Final

import msgspec

from localapi.system.time_limit import TimeLimitExceeded, limited
from localapi.worker.llm import bounded_template, call_history, prompt_losses
from localapi.worker.llm.generic_tools import as_text, explained
from localapi.worker.llm.output.call_ids import ANY
from localapi.worker.llm.output.formats import FORMATS, GENERIC
from localapi.worker.llm.output.recognition import format_name, template_text
from localapi.worker.llm.tool_forms import described, spelled_out
from localapi.worker.protocol import (
    THINKING_BUDGET,
    THINKING_LEVEL,
    THINKING_MODE,
    THINKING_SWITCHES,
    TOOL_VARIABLES,
    Chat,
    Message,
    reads_variable,
    reads_words,
    switches_thinking,
)

LEVELS: Final = ("none", "no_think", "minimal", "low", "medium", "high", "xhigh", "max")
"""Levels from no thinking, which Hunyuan calls no_think, to the maximum."""
_THINKING_BLOCK: Final = re.compile(r"\[[\"']type[\"']\] == [\"']thinking[\"']")
"""A template that reads reasoning from parts of the content (Magistral, Ministral)."""
_USUAL: Final = ("low", "medium", "high")
"""The levels of a template that writes any word into the prompt (gpt-oss)."""
_QUOTED: Final = re.compile(rf"[\"'](?P<level>{'|'.join(LEVELS)})[\"']")


def known_levels(template: str) -> tuple[str, ...]:
    """Return the levels that the template compares with; if it names only one, also those that most models know."""
    named = {found["level"] for found in _QUOTED.finditer(template)}
    if len(named) < 2:  # noqa: PLR2004
        named |= set(_USUAL)
    return tuple(level for level in LEVELS if level in named)


def nearest_level(level: str, known: Sequence[str]) -> str:
    """Return the known level nearest to this one; of two, the lower. An unknown word is returned unchanged."""
    if level in known or level not in LEVELS:
        return level
    place = LEVELS.index(level)
    return min(known, key=lambda other: (abs(LEVELS.index(other) - place), LEVELS.index(other)))


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
    """Render one request's prompts, with its tools and template variables."""

    def __init__(self, writer: PromptWriter, request: Chat, seconds: float) -> None:
        self._seconds = seconds
        self.messages = writer.messages(request)
        self._writer = writer
        self._request = request
        self._options = writer.options(request)

    def text(self, messages: list[dict[str, Any]], *, answer: bool) -> str:
        """Return the template's text for these messages. With `answer`, up to where the response begins."""
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
    """Writer of one model's prompts."""

    def __init__(self, tokenizer: Any) -> None:
        """Create a writer from mlx-lm's TokenizerWrapper."""
        bounded_template.install()
        self._tokenizer = tokenizer
        self.has_template = bool(tokenizer.has_chat_template)
        self.stop: Sequence[str] = () if self.has_template else ("\nUser:",)
        """Stop strings that the format itself needs."""
        # A template that is a program (DeepSeek V3.2's) has no text, and mlx-lm knows what it can do.
        self._template = template_text(tokenizer) or None
        name = format_name(tokenizer.tool_parser) if self.has_template else ""
        row = FORMATS.get(name)
        self._spelling = row.spelling if row is not None else None
        self._ids = row.ids if row is not None else ANY
        self._is_generic = name == GENERIC
        known = [name for name in TOOL_VARIABLES if self._knows(name)]
        self._tools_variable = known[0] if known else TOOL_VARIABLES[0]
        is_shown = self.has_template and (self._template is None or bool(known))
        # Templates of DeepSeek write calls but do not mention tools.
        self._explains_tools = self._spelling is not None and (self._is_generic or not is_shown)
        self.shows_tools = is_shown or self._explains_tools
        """True if the template shows tools to the model."""
        switched = switches_thinking(self._template or "")
        self._reads_words = reads_words(self._template or "") and not any(map(self._knows, THINKING_SWITCHES))
        levels = self._knows(THINKING_LEVEL)
        self._has_thinking_blocks = _THINKING_BLOCK.search(self._template or "") is not None
        self._levels = known_levels(self._template or "")
        self.thinking = {
            "thinking": bool(tokenizer.has_thinking) or switched or levels,
            "thinking_switch": switched,
            "thinking_levels": levels,
        }
        """Fields of `Capabilities` about thinking, as the template supports it."""

    def tokens(
        self, request: Chat, check: Callable[[str], None] | None = None, *, seconds: float = RENDER_SECONDS
    ) -> list[int]:
        """Return the prompt, ready for the response. `check` may refuse its text.

        Raise PromptRefused and the errors of `check`. Raise TemplateTooSlow if the template takes longer than
        `seconds`.
        """
        text = self.text(request, check, seconds=seconds)
        with _refusing([{"content": text}]):
            tokens = self.encode(text) if self.has_template else list(self._tokenizer.encode(text))
        if not tokens:
            raise PromptRefused("The messages give an empty prompt. Send some text.")
        return tokens

    def text(
        self, request: Chat, check: Callable[[str], None] | None = None, *, seconds: float = RENDER_SECONDS
    ) -> str:
        """Return the text of the prompt. See `tokens`."""
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
        return text

    def rendering(self, request: Chat, *, seconds: float = RENDER_SECONDS) -> Rendering | None:
        """Return a renderer of the request's prompt, to find where it can be split; None if there is no template."""
        return Rendering(self, request, seconds) if self.has_template else None

    def messages(self, request: Chat) -> list[dict[str, Any]]:
        """Return the messages as templates expect them."""
        calls = [call for message in request.messages for call in message.calls]
        names = {call.id: call.name for call in calls}
        ids = {call.id: self._ids.fitting(call.id, call.name, number) for number, call in enumerate(calls)}
        written = [self._message(message, names, ids) for message in request.messages]
        effort = request.template_options.get("reasoning_effort")
        asking = [at for at, message in enumerate(written) if message["role"] == "user"]
        if self._reads_words and effort is not None and asking:
            word = "/no_think" if effort == "none" else "/think"
            written[asking[-1]]["content"] += f" {word}"
        if self._is_generic:
            written = as_text(written)
        if self._explains_tools and self._spelling is not None:
            written = explained(written, offered_tools(request), self._spelling)
        return written

    def _message(self, message: Message, names: Mapping[str, str], ids: Mapping[str, str]) -> dict[str, Any]:
        """Return the message as templates expect it, in OpenAI's form with the content as text.

        `names` and `ids` are the functions of the calls in the conversation, and the ids for the template, by call id.
        """
        written: dict[str, Any] = {"role": message.role, "content": message.text}
        # Templates often silently drop messages whose role they do not name.
        if message.role == "developer" and self._template is not None and "developer" not in self._template:
            written["role"] = "system"
        if message.name is not None:
            written["name"] = message.name
        if message.reasoning is not None:
            written["reasoning_content"] = message.reasoning
            if "reasoning_content" not in (self._template or "reasoning_content"):
                written["thinking"] = message.reasoning  # the name in gpt-oss and LFM2.5
                written["reasoning"] = message.reasoning  # Solar
            if self._has_thinking_blocks:
                blocks = [{"type": "thinking", "thinking": message.reasoning}, {"type": "text", "text": message.text}]
                written["content"] = blocks if message.text else blocks[:1]
        if message.call_id is not None:
            written["tool_call_id"] = ids.get(message.call_id, message.call_id)
            if message.call_id in names:  # which OpenAI's API does not repeat, and Kimi's template reads
                written.setdefault("name", names[message.call_id])
        if message.calls:
            written["tool_calls"] = []
            for call in message.calls:
                function = {"name": call.name, "arguments": call.arguments}
                call_id = ids[call.id]
                expected = call_history.expected({"id": call_id, "type": "function", "function": function})
                written["tool_calls"].append(expected)
        return written

    def options(self, request: Chat) -> dict[str, Any]:
        """Return the template's variables. Raise PromptRefused if the template does not support reasoning_effort."""
        options = dict(request.template_options)
        effort = options.pop("reasoning_effort", None)
        if effort is None:
            return options
        switches = [name for name in THINKING_SWITCHES if self._knows(name)]
        has_levels, has_budget = self._knows(THINKING_LEVEL), self._knows(THINKING_BUDGET)
        if not (has_levels or switches_thinking(self._template or "")):
            if effort == "none" and not self._tokenizer.has_thinking:
                return options
            raise PromptRefused(
                "This model's chat template does not support reasoning_effort. Remove it.", "reasoning_effort"
            )
        for name in switches:
            options.setdefault(name, effort != "none")
        if self._knows(THINKING_MODE):
            options.setdefault(THINKING_MODE, "disabled" if effort == "none" else "enabled")
        if has_budget and effort == "none":
            options.setdefault(THINKING_BUDGET, 0)
        if has_levels and not (switches and effort == "none"):
            options[THINKING_LEVEL] = nearest_level(str(effort), self._levels)
        return options

    def _knows(self, variable: str) -> bool:
        return self._template is not None and reads_variable(self._template, variable)

    def _apply(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        """Return the output of transformers.

        mlx-lm's wrapper would enable thinking where the template disables it; it is needed if it has a program.
        """
        if getattr(self._tokenizer, "_chat_template", None) is not None:
            return self._tokenizer.apply_chat_template(messages, **options)
        return self._tokenizer._tokenizer.apply_chat_template(messages, return_dict=False, **options)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text that the template wrote."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def templated(
        self, messages: list[dict[str, Any]], request: Chat, options: dict[str, Any], *, prompt: bool, seconds: float
    ) -> str:
        """Return the template's text for the messages. With `prompt`, up to where the response begins.

        Raise TemplateTooSlow.
        """
        tools = offered_tools(request)
        if tools and not self.shows_tools:
            raise PromptRefused(
                "This model's chat template does not support tools. Remove them, or set tool_format: generic in its "
                "entry.",
                "tools",
            )
        continues = prompt and request.continues

        def render(tools: list[dict[str, Any]] | None, messages: list[dict[str, Any]]) -> str:
            shown = {self._tools_variable: None if self._explains_tools else tools}
            return str(
                self._apply(
                    messages,
                    add_generation_prompt=prompt and not continues,
                    continue_final_message=continues,
                    tokenize=False,
                    **shown,
                    **options,
                )
            )

        # Some templates need the fields that OpenAI's API lets clients omit; the others do not show them. Others,
        # made for conversations with tools, need a list even if it is empty; and some need a full schema.
        complete = [described(tool) for tool in tools]
        shown: list[list[dict[str, Any]] | None] = []
        for offer in (tools or None, complete, spelled_out(complete)):
            if offer not in shown:
                shown.append(offer)
        names = [] if self._explains_tools else [tool["function"]["name"] for tool in tools]
        variants = [messages, *self._with_thinking_apart(messages, continues=continues)]
        if names and messages[0]["role"] != "system":  # FunctionGemma's shows tools in a system message alone
            variants.append([{"role": "system", "content": ""}, *messages])
        return self._first_with_tools(variants, [partial(render, offer) for offer in shown], names, seconds)

    def _first_with_tools(
        self,
        variants: list[list[dict[str, Any]]],
        renders: list[Callable[[list[dict[str, Any]]], str]],
        names: list[str],
        seconds: float,
    ) -> str:
        """Return the first text that has all names of tools, or else the first one. Raise the first error otherwise."""
        without: str | None = None
        refusal: Exception | None = None
        for written, render in product(variants, renders):
            try:
                text = self._first_form(written, render, seconds)
            except PromptRefused:
                raise
            except Exception as error:  # whatever a template raises
                refusal = refusal or error
                continue
            if all(name in text for name in names):
                return text
            without = without if without is not None else text
        if without is None:
            assert refusal is not None  # noqa: S101  # there is a first offer
            raise refusal
        return without

    def _with_thinking_apart(
        self, messages: list[dict[str, Any]], *, continues: bool
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the messages with the reasoning of a prefilled response in its own field, if there is any.

        Templates that take it out of the content themselves do not end with the content, as transformers requires.
        """
        start, end = self._tokenizer.think_start, self._tokenizer.think_end
        text = str(messages[-1].get("content") or "") if messages else ""
        if not continues or not end or not text.rpartition(end)[2].strip() or end not in text:
            return
        thinking, _, content = text.rpartition(end)
        thinking = thinking.strip().removeprefix(start).strip()
        yield [*messages[:-1], {**messages[-1], "content": content.lstrip(), "reasoning_content": thinking}]

    def _first_form(
        self, messages: list[dict[str, Any]], render: Callable[[list[dict[str, Any]]], str], seconds: float
    ) -> str:
        """Render the first form of the messages that the template writes completely. Raise its first error.

        Raise PromptRefused if no form keeps what a model needs to know.
        """
        best: tuple[tuple[bool, bool, int], str, str] | None = None
        refusal: Exception | None = None

        def limited_render(form: list[dict[str, Any]]) -> str:
            try:
                return limited(seconds, partial(render, form))
            except TimeLimitExceeded:
                raise TemplateTooSlow(
                    f"The model's chat template took longer than {seconds:g} s for these messages. Send fewer messages."
                ) from None

        for form in prompt_losses.forms(messages, self._spelling):
            try:
                text = limited_render(form)
            except TemplateTooSlow:
                raise
            except Exception as error:  # whatever a template raises
                if best is None:
                    refusal = refusal or error
                continue
            losses, problem = prompt_losses.losses(messages, form, text, limited_render)
            if best is None or losses < best[0]:
                best = losses, text, problem
            if not any(losses):
                break
        if best is not None and not best[2]:
            return best[1]
        raise refusal or PromptRefused(best[2] if best is not None else "")


def offered_tools(request: Chat) -> list[dict[str, Any]]:
    """Return the tools that the model may call, as templates expect them: in OpenAI's form."""
    if request.tool_choice == "none":
        return []
    return [{"type": "function", "function": msgspec.to_builtins(tool)} for tool in request.tools]


@contextmanager
def _refusing(messages: list[dict[str, Any]]) -> Iterator[None]:
    """Turn errors of templates and tokenizers into PromptRefused, because they concern these messages."""
    try:
        yield
    except PromptRefused:
        raise
    except Exception as error:
        if _SURROGATE.search(json.dumps(messages, ensure_ascii=False, default=str)):
            raise PromptRefused("A message contains half of a surrogate pair, which is not a character.") from error
        reason = str(error)
        if len(reason) > LONGEST_REASON:  # some errors of transformers repeat the whole conversation
            reason = f"{reason[:LONGEST_REASON]}…"
        raise PromptRefused(f"The model's chat template refuses these messages: {reason}") from error


def _plain(messages: list[dict[str, Any]], request: Chat) -> str:
    """Return the prompt for a model without a template."""
    if offered_tools(request):
        raise PromptRefused("This model has no chat template, so it cannot use tools. Remove them.", "tools")
    lines = [_line(message) for message in messages]
    return "\n".join(lines if request.continues else [*lines, "Assistant:"])


def _line(message: dict[str, Any]) -> str:
    name = _LINE_OF_ROLE.get(message.get("role", ""))
    return f"{name}: {message['content']}" if name else str(message["content"])
