"""The chat template of a model on this machine, and what it shows about the model before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from localapi.worker.protocol import (
    THINKING_LEVEL,
    TOOL_VARIABLES,
    Capabilities,
    reads_variable,
    switches_thinking,
)

_IN_A_FILE: Final = "chat_template.jinja"
_IN_JSON: Final = ("chat_template.json", "tokenizer_config.json")
_MARKS_OF_THOUGHT: Final = ("</think>", "[/THINK]", "<|channel|>", "</seed:think>")
MAX_BYTES: Final = 64 * 1024 * 1024


def read_template(folder: Path) -> str | None:
    """Return the template as transformers finds it; None if there is none, or it cannot be read. Blocks."""
    try:
        file = folder / _IN_A_FILE
        if file.is_file():
            return file.read_text("utf-8")
        for name in _IN_JSON:
            file = folder / name
            if file.is_file() and file.stat().st_size <= MAX_BYTES:
                found = _template_in(json.loads(file.read_text("utf-8")))
                if found is not None:
                    return found
    except (OSError, ValueError, RecursionError):
        return None
    return None


def _template_in(content: Any) -> str | None:
    """Return the template from a tokenizer's settings; if there are several, the one for tools."""
    template = content.get("chat_template") if isinstance(content, dict) else None
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("tool_use") or named.get("default")
    return template if isinstance(template, str) else None


def expected_of(template: str | None) -> Capabilities:
    """Return the capabilities that a template shows. Only the loaded model knows whether a tool call can be forced."""
    if template is None:
        return Capabilities()
    switch = switches_thinking(template)
    levels = reads_variable(template, THINKING_LEVEL)
    return Capabilities(
        tools=any(reads_variable(template, variable) for variable in TOOL_VARIABLES),
        json_schema=True,
        thinking=switch or levels or any(mark in template for mark in _MARKS_OF_THOUGHT),
        thinking_switch=switch,
        thinking_levels=levels,
    )
