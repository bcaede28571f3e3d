"""Recognize the format of a model's responses by its chat template and its vocabulary, never by its name.

mlx-lm's TokenizerWrapper knows some families, and only from a template that is a single string. This file completes its
knowledge, in the wrapper's own fields, so that everything else reads one place. It becomes unnecessary if mlx-lm
(0.32.2) recognizes all of these.
"""

# ruff: noqa: RUF001  # DeepSeek writes its marks with full-width bars
from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from localapi.worker.llm.output.channels import HARMONY, SOLAR, Channels
from localapi.worker.llm.output.formats import FORMATS, CallFormat

AUTO: Final = "auto"
NONE: Final = "none"


@dataclass(frozen=True)
class Sign:
    """Strings that identify a format if all are present."""

    format: str
    template: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()


CALL_SIGNS: Final = (
    Sign("harmony", template=("<|channel|>", "<|message|>"), vocabulary=("<|channel|>", "<|message|>", "<|call|>")),
    Sign("seed", template=("<seed:tool_call>",)),
    Sign("deepseek_v32", template=("｜DSML｜", "function_calls>")),
    Sign("deepseek_v4", template=("｜DSML｜", "tool_calls>")),
    Sign("deepseek_v3", template=("<｜tool▁sep｜>", "```json")),
    Sign("deepseek_v31", template=("<｜tool▁sep｜>",)),
    Sign("command_r7b", template=("<|START_ACTION|>",)),
    Sign("command_r", template=("Action:", "```json", "tool_name")),
    Sign("apertus", template=("<|tools_prefix|>",)),
    Sign("nemotron", template=("<TOOLCALL>",)),
    Sign("functools", template=("functools[",)),
    Sign("mistral_call_id", template=("[TOOL_CALLS]", "[CALL_ID]")),
    Sign("mistral_args", template=("[TOOL_CALLS]", "[ARGS]")),
    Sign("mistral", template=("[TOOL_CALLS]",)),
    Sign("glm47", template=("<arg_key>", "</arg_key><arg_value>")),
    Sign("glm45", template=("<arg_key>",)),
    Sign("tool_calls", template=("<tool_calls>",)),
    Sign("gigachat", template=("<|function_call|>",)),
    Sign("hunyuan3", template=("<tool_calls{}>", ":opensource")),
    Sign("minimax_m3", template=("]<]minimax[>[",)),
    Sign("solar", template=("<|tool_call:args|>",)),
    Sign("functionary", template=(">>>${recipient}",)),
    Sign("function_json", template=("<function=", "}</function>")),
    Sign("internlm2", template=("<|action_start|>", "<|plugin|>")),
    Sign("python_list", template=("[func_name1(",)),
    Sign("granite_20b", template=("<function_call> ",)),
    Sign("gigachat3", template=("function call", "add_tokens.role_sep")),
    Sign("json_list", template=('[{"name": "tool_call_name"',)),
    Sign("step3", template=("steptml:invoke",)),
    Sign("dots", template=("<dots_function_call>",)),
    Sign("phi4", template=("<|tool_call|>", "<|/tool_call|>")),
    Sign("granite", template=("<|tool_call|>",)),
)
"""Signs of call formats; the first that fits counts. mlx-lm's own inference comes next, then `LATE_SIGNS`."""
LATE_SIGNS: Final = (
    Sign("pythonic", template=("List of tools: [",), vocabulary=("<|tool_call_start|>",)),
    Sign("llama3", template=('"parameters"', "tools"), vocabulary=("<|python_tag|>",)),
    Sign("llama3", template=('"parameters"', "tools"), vocabulary=("<|python_start|>",)),  # Llama 4
    Sign("json_tools", template=("<tool_call>", "tools")),
)


@dataclass(frozen=True)
class Thinking:
    """Marks around reasoning, and others that belong to the format and are not text."""

    start: str
    end: str
    around: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    """Strings of a template that shows this format; empty if mlx-lm recognizes it."""
    channels: Channels | None = None
    """The messages that the answer is made of, if its reasoning is one."""


THINKING: Final = {
    "harmony": Thinking(
        "<|channel|>analysis<|message|>", "<|end|>", templates=("<|channel|>analysis",), channels=HARMONY
    ),
    "solar": Thinking("<|think|>", "<|end|>", templates=("<|begin|>assistant<|think|>",), channels=SOLAR),
    "magistral": Thinking("[THINK]", "[/THINK]", templates=("[THINK]",)),
    "seed": Thinking("<seed:think>", "</seed:think>", templates=("<seed:think>",)),
    "apertus": Thinking("<|inner_prefix|>", "<|inner_suffix|>", templates=("<|inner_prefix|>",)),
    "command_r7b": Thinking(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        around=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        templates=("<|START_THINKING|>",),
    ),
    "granite": Thinking(
        "<think>",
        "</think>",
        around=("<response>", "</response>"),
        templates=("<response></response>", "<think></think>"),
    ),
    "apriel": Thinking(
        "Here are my reasoning steps:\n",
        "[BEGIN FINAL RESPONSE]",
        around=("[END FINAL RESPONSE]",),
        templates=("[BEGIN FINAL RESPONSE]",),
    ),
    "hunyuan3": Thinking("<think:opensource>", "</think:opensource>", templates=("<think{}>", ":opensource")),
    "minimax_m3": Thinking("<mm:think>", "</mm:think>", templates=("<mm:think>",)),
    "think": Thinking("<think>", "</think>", templates=("</think>",)),
}


@dataclass(frozen=True)
class Recognised:
    """Formats of a model."""

    tools: str | None
    """Name of its format of calls; None if unknown, or if the template has no tools."""
    reasoning: str | None
    """Name of its format of reasoning; None if it does not think, as far as known."""


def recognise(tokenizer: Any, *, tools: str = AUTO, reasoning: str = AUTO) -> Recognised:
    """Return the formats of a model, and set them in mlx-lm's TokenizerWrapper.

    `tools` and `reasoning` are names that an entry chooses; "auto": by template and vocabulary; "none": no format.
    """
    template = template_text(tokenizer)
    vocabulary = tokenizer.get_vocab()
    if tools == AUTO:
        tools = _tools_of(tokenizer, template, vocabulary)
    _set_tools(tokenizer, None if tools == NONE else tools)
    if reasoning == AUTO:
        reasoning = _reasoning_of(tokenizer, template, vocabulary)
    if reasoning in THINKING:
        _set_thinking(tokenizer, THINKING[reasoning])
    elif reasoning == NONE:
        tokenizer._think_start = tokenizer._think_end = None
        tokenizer._think_start_tokens = tokenizer._think_end_tokens = None
    return Recognised(None if tools == NONE else tools, None if reasoning == NONE else reasoning)


def template_text(tokenizer: Any) -> str:
    """Return the template, or all of several as one text; empty if there is none, or it is a program."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return "\n".join(map(str, template.values()))
    return str(template or "")


def channels_of(tokenizer: Any) -> Channels | None:
    """Return the messages that this model's answers are made of; None if they are one text."""
    row = FORMATS.get(format_name(tokenizer.tool_parser))
    if row is not None and row.channels is not None:
        return row.channels
    for thinking in THINKING.values():
        if thinking.channels is not None and thinking.start == tokenizer.think_start:
            return thinking.channels
    return None


def format_name(parser: object) -> str:
    """Return the name of the format that a TokenizerWrapper's parser reads."""
    if isinstance(parser, _OwnParser):
        return parser.format
    return str(getattr(parser, "__module__", "")).rpartition(".")[2]


class _OwnParser:
    """Stand-in in a TokenizerWrapper for the parser of a format that mlx-lm does not have."""

    def __init__(self, format_: str) -> None:
        self.format = format_

    def __call__(self, text: str, tools: object = None) -> object:
        """Raise ValueError: the row of the format defines how its calls are read."""
        raise ValueError(f"no call: {len(text)} characters")


def _tools_of(tokenizer: Any, template: str, vocabulary: Collection[str]) -> str:
    for sign in CALL_SIGNS:
        if _shows(sign, template, vocabulary):
            return sign.format
    if tokenizer.tool_parser is not None:
        return format_name(tokenizer.tool_parser)
    for sign in LATE_SIGNS:
        if _shows(sign, template, vocabulary):
            return sign.format
    return NONE


def _shows(sign: Sign, template: str, vocabulary: Collection[str]) -> bool:
    return all(text in template for text in sign.template) and all(token in vocabulary for token in sign.vocabulary)


def _reasoning_of(tokenizer: Any, template: str, vocabulary: Collection[str]) -> str:
    for name, thinking in THINKING.items():
        if name == "think" and tokenizer.has_thinking:
            break  # mlx-lm found marks in the vocabulary
        if all(text in template for text in thinking.templates):
            return name
    if not tokenizer.has_thinking:
        return NONE
    return "think" if tokenizer.think_start == "<think>" else str(tokenizer.think_start)


def _set_tools(tokenizer: Any, name: str | None) -> None:
    if name is None:
        tokenizer._tool_parser = tokenizer._tool_call_start = tokenizer._tool_call_end = None
        return
    format_ = FORMATS.get(name, CallFormat())
    parser: Callable[..., object] = _OwnParser(name)
    marks = format_.marks
    if marks is None:
        module = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
        parser, marks = module.parse_tool_call, (module.tool_call_start, module.tool_call_end)
    tokenizer._tool_parser = parser
    tokenizer._tool_call_start, tokenizer._tool_call_end = marks
    vocabulary = tokenizer.get_vocab()
    for token in format_.ends_turn:
        if token in vocabulary:
            tokenizer.add_eos_token(token)


def _set_thinking(tokenizer: Any, thinking: Thinking) -> None:
    tokenizer._think_start, tokenizer._think_end = thinking.start, thinking.end
    tokenizer._think_start_tokens = tuple(tokenizer.encode(thinking.start, add_special_tokens=False))
    tokenizer._think_end_tokens = tuple(tokenizer.encode(thinking.end, add_special_tokens=False))
    if thinking.around:
        tokenizer._structural_markers = thinking.around
