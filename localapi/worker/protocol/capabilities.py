"""Capabilities of chat models, and the names of formats for thinking and tool calls."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

TOOL_VARIABLES = ("tools", "xml_tools")
"""Names under which templates read tools; the second one is SmolLM3's."""
THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Variables of chat templates that turn thinking on and off."""
THINKING_BUDGET = "thinking_budget"
"""Variable for the maximum tokens of thinking; 0: none."""
THINKING_MODE = "thinking_mode"
"""Variable that is "enabled" or "disabled" (MiniMax M3)."""
THINKING_LEVEL = "reasoning_effort"
"""Variable for the reasoning effort."""


_TEMPLATE_CODE: Final = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_TEMPLATE_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def reads_variable(template: str, variable: str) -> bool:
    """Return True if the template reads a variable, as opposed to a word of its text or a field of another value."""
    name = re.compile(rf"(?<![.\w]){variable}\b(?!\s*=[^=])")
    return any(name.search(_TEMPLATE_TEXT.sub("''", code)) for code in _TEMPLATE_CODE.findall(template))


def reads_words(template: str) -> bool:
    """Return True if the words /think and /no_think in a message turn thinking on and off (Nemotron Nano 2)."""
    return "'/no_think' in " in template


def switches_thinking(template: str) -> bool:
    """Return True if a request can turn thinking on and off."""
    variables = (*THINKING_SWITCHES, THINKING_BUDGET, THINKING_MODE)
    return reads_words(template) or any(reads_variable(template, variable) for variable in variables)


ToolFormatName = Literal[
    "auto", "none", "generic", "apertus", "command_r", "command_r7b", "deepseek_v3", "deepseek_v31",
    "deepseek_v32", "deepseek_v4", "dots", "function_gemma", "function_json", "functionary", "functools",
    "gemma4", "gigachat", "gigachat3", "glm45", "glm47", "granite", "granite_20b", "harmony", "hunyuan3",
    "internlm2", "json_list", "json_tools", "kimi_k2", "kimi_k3", "llama3", "longcat", "minicpm5", "minimax_m2",
    "minimax_m3", "mistral", "mistral_args", "mistral_call_id", "muse_spark", "nemotron", "phi4", "python_list",
    "pythonic", "qwen3_coder", "seed", "solar", "step3", "tool_calls",
]  # fmt: skip
"""Names of formats of tool calls: the rows of `worker.llm.output.formats`."""
ReasoningFormatName = Literal[
    "auto", "none", "apertus", "apriel", "command_r7b", "granite", "harmony", "hunyuan3", "magistral",
    "minimax_m3", "seed", "solar", "think",
]  # fmt: skip
"""Names of formats of reasoning: those of `worker.llm.output.recognition`."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities of a chat model. None: only the loaded model knows, and it has not been loaded."""

    tools: bool | None = None
    """True if its chat template shows it the tools."""
    forced_tools: bool | None = None
    """True if it can be made to call a tool."""
    json_schema: bool | None = None
    """True if its responses can be constrained to a JSON schema."""
    thinking: bool | None = None
    """True if it can generate reasoning before the response."""
    thinking_switch: bool | None = None
    """True if a request can switch reasoning on and off."""
    thinking_levels: bool | None = None
    """True if a request can set the reasoning effort."""
    tool_format: str | None = None
    """Format of calls, as in the option of this name; None if unknown, or not loaded."""
    reasoning_format: str | None = None
    """Format of reasoning."""
    vision: bool | None = None
    """True if it accepts images."""
    hearing: bool | None = None
    """True if it accepts recordings."""
