"""Recognition of formats, by template and vocabulary."""

from __future__ import annotations

from typing import get_args

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from localapi.worker.llm.output.formats import FORMATS
from localapi.worker.llm.output.recognition import AUTO, NONE, THINKING, recognise
from localapi.worker.protocol import ReasoningFormatName, ToolFormatName
from tools.demo.tokenizer import make_tokenizer

TOOLS = "{% for t in tools %}{{ t }}{% endfor %}"


def tokenizer_with(template: object) -> TokenizerWrapper:
    tokenizer = make_tokenizer(["Hello there."] * 5, vocab_size=300)
    tokenizer.chat_template = template
    return TokenizerWrapper(tokenizer)


def test_the_names_of_the_options_are_those_of_the_formats() -> None:
    assert set(get_args(ToolFormatName)) == {AUTO, NONE, *FORMATS}
    assert set(get_args(ReasoningFormatName)) == {AUTO, NONE, *THINKING}


@pytest.mark.parametrize(
    ("template", "tools", "reasoning"),
    [
        (f"{TOOLS}[TOOL_CALLS] [CALL_ID] [ARGS]", "mistral_call_id", "think"),
        (f"{TOOLS}[TOOL_CALLS] [ARGS] [THINK]", "mistral_args", "magistral"),
        (f"{TOOLS}[TOOL_CALLS]", "mistral", "think"),
        (f"{TOOLS}<|tool_call|> <think></think> <response></response>", "granite", "granite"),
        (f"{TOOLS}<|tool_call|><|/tool_call|>", "phi4", "think"),
        (f"{TOOLS}<seed:tool_call> <seed:think>", "seed", "seed"),
        (f"{TOOLS}<|START_ACTION|> <|START_THINKING|>", "command_r7b", "command_r7b"),
        (f"{TOOLS}<TOOLCALL>", "nemotron", "think"),
        (f"{TOOLS}<arg_key>k</arg_key>\n<arg_value>", "glm45", "think"),
        (f"{TOOLS}<arg_key>k</arg_key><arg_value>", "glm47", "think"),
        (f"{TOOLS}<tool_call> <tool_calls>[ [BEGIN FINAL RESPONSE]", "tool_calls", "apriel"),
        (f"{TOOLS}<|function_call|>", "gigachat", "think"),
        (f"{TOOLS}':opensource' '<tool_calls{{}}>' '<think{{}}>'", "hunyuan3", "hunyuan3"),
        (f"{TOOLS}]<]minimax[>[<tool_call> <mm:think>", "minimax_m3", "minimax_m3"),
        (f"{TOOLS}<|tool_call:args|> '<|begin|>assistant<|think|>'", "solar", "solar"),
        (f"{TOOLS}>>>${{recipient}}", "functionary", "think"),
        (f'{TOOLS}<function=f>{{"a": 1}}</function>', "function_json", "think"),
        (f"{TOOLS}<|action_start|><|plugin|>", "internlm2", "think"),
        (f"{TOOLS}[func_name1(a=b)]", "python_list", "think"),
        (f'{TOOLS}<function_call> {{"name"', "granite_20b", "think"),
        (f"{TOOLS}function call add_tokens.role_sep", "gigachat3", "think"),
        (f'{TOOLS}[{{"name": "tool_call_name"', "json_list", "think"),
        (f"{TOOLS}<steptml:invoke", "step3", "think"),
        (f"{TOOLS}<dots_function_call>", "dots", "think"),
        ({"default": "hi", "tool_use": f"{TOOLS}<tool_call>"}, "json_tools", "think"),
        (f"{TOOLS} in a way of its own", None, "think"),
    ],
)
def test_a_format_is_recognised(template: object, tools: str | None, reasoning: str) -> None:
    found = recognise(tokenizer_with(template))
    assert (found.tools, found.reasoning) == (tools, reasoning)


def test_an_entry_may_choose_other_formats() -> None:
    tokenizer = tokenizer_with(f"{TOOLS}[TOOL_CALLS]")
    found = recognise(tokenizer, tools="llama3", reasoning="none")
    assert (found.tools, found.reasoning) == ("llama3", None)
    assert (tokenizer.tool_call_start, tokenizer.has_thinking) == ("<|python_tag|>", False)
