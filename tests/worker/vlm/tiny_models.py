"""Make a tiny model that sees, or that hears, too, with random weights and the demo model's words.

Runs in mlx-vlm's environment: `python tiny_models.py vision|positions|hearing DEMO FOLDER`
"""

# ruff: noqa: PLC0415  # the packages are those of the environment

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PATCHES = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
    "min_pixels": 784, "max_pixels": 50176, "do_resize": True, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
HEARING = {
    "boi_token": "<|image>", "image_token": "<|image|>", "eoi_token": "<image|>", "boa_token": "<|audio>",
    "audio_token": "<|audio|>", "eoa_token": "<audio|>", "video_token": "<|video|>",
}  # fmt: skip
TOOLS = (
    "{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>' + (tools | tojson) + '</tools>\\n"
    '<tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n\' }}{%- endif %}'
)
MESSAGES = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- 'IMAGE' }}{%- elif part.type == 'audio' %}{{- '<|audio|>' }}"
    "{%- elif part.text is defined %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


Made = tuple[dict[str, Any], dict[str, Any], Any]
"""Settings of the tokenizer beside the demo model's, content of config.json, and the model."""


def vision(words: Tokenizer, folder: Path) -> Made:
    """Make a Qwen2-VL."""
    from mlx_vlm.models.qwen2_vl import Model, ModelConfig, TextConfig, VisionConfig

    words.add_special_tokens(list(VISION))
    start, _, image, video = (words.token_to_id(token) for token in VISION)
    config: dict[str, Any] = {
        "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "hidden_size": 64,
        "num_hidden_layers": 2, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "vocab_size": words.get_vocab_size(), "max_position_embeddings": 2048,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "tie_word_embeddings": True, "eos_token_id": 1,
        "image_token_id": image, "video_token_id": video, "vision_start_token_id": start,
        "vision_config": {
            "model_type": "qwen2_vl", "depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2,
            "patch_size": 14, "spatial_patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "in_channels": 3,
        },
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps({**PATCHES, "processor_class": "Qwen2VLProcessor"}))
    described = ModelConfig.from_dict(dict(config))
    described.text_config = TextConfig.from_dict(dict(config))
    described.vision_config = VisionConfig.from_dict(dict(config["vision_config"]))
    settings = {"chat_template": TOOLS + MESSAGES.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")}
    return settings, config, Model(described)


def positions(words: Tokenizer, folder: Path) -> Made:
    """Make a GLM-4V, which keeps the positions of a prompt to itself."""
    from mlx_vlm.models.glm4v import Model, ModelConfig, TextConfig, VisionConfig

    marks = ["<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>"]
    words.add_special_tokens(marks)
    start, end, image, video = map(words.token_to_id, marks)
    text = {
        "model_type": "glm4v_text", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": words.get_vocab_size(), "pad_token_id": 0,
        "max_position_embeddings": 2048, "rope_scaling": {"rope_type": "default", "mrope_section": [1, 1, 2]},
        "eos_token_id": [1],
    }  # fmt: skip
    sight = {
        "model_type": "glm4v", "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
        "patch_size": 14, "out_hidden_size": 64, "image_size": 56,
    }  # fmt: skip
    config = {
        "model_type": "glm4v", "architectures": ["Glm4vForConditionalGeneration"], "text_config": text,
        "vision_config": sight, "vocab_size": words.get_vocab_size(), "image_token_id": image,
        "image_token_index": image, "video_token_id": video, "video_token_index": video, "vision_start_token_id": start,
        "vision_end_token_id": end, "eos_token_id": [1], "hidden_size": 64,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps({**PATCHES, "processor_class": "Glm46VProcessor"}))
    described = ModelConfig.from_dict(dict(config))
    described.text_config = TextConfig.from_dict(dict(text))
    described.vision_config = VisionConfig.from_dict(dict(sight))
    settings = {"chat_template": MESSAGES.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>")}
    return settings, config, Model(described)


def hearing(words: Tokenizer, folder: Path) -> Made:
    """Make a Gemma 4."""
    from mlx_vlm.models.gemma4 import AudioConfig, Model, ModelConfig, TextConfig, VisionConfig
    from tokenizers.processors import TemplateProcessing

    words.add_special_tokens([*HEARING.values(), "<bos>"])
    first = ("<bos>", words.token_to_id("<bos>"))  # which Gemma's tokenizer adds, and its template, too
    words.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[first])
    numbers = {name: words.token_to_id(token) for name, token in HEARING.items()}
    text = {
        "model_type": "gemma4_text", "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16,
        "vocab_size": words.get_vocab_size(), "vocab_size_per_layer_input": words.get_vocab_size(),
        "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "sliding_window": 512,
        "sliding_window_pattern": 2, "max_position_embeddings": 2048, "use_double_wide_mlp": False,
    }  # fmt: skip
    sight = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16, "default_output_length": 70,
        "position_embedding_size": 256,
    }  # fmt: skip
    audio = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 48,
        "subsampling_conv_channels": [8, 4], "use_clipped_linears": False,
    }  # fmt: skip
    config = {
        "model_type": "gemma4", "architectures": ["Gemma4ForConditionalGeneration"], "text_config": text,
        "vision_config": sight, "audio_config": audio, "vocab_size": words.get_vocab_size(), "hidden_size": 64,
        "image_token_id": numbers["image_token"], "audio_token_id": numbers["audio_token"],
        "video_token_id": numbers["video_token"], "eos_token_id": 1, "vision_soft_tokens_per_image": 70,
    }  # fmt: skip
    images = {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 70}
    processor = {"processor_class": "Gemma4Processor", "image_processor": images}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    described = ModelConfig.from_dict(dict(config))
    described.text_config = TextConfig.from_dict(dict(text))
    described.vision_config = VisionConfig.from_dict(dict(sight))
    described.audio_config = AudioConfig.from_dict(dict(audio))
    template = "{{- bos_token }}" + MESSAGES.replace("IMAGE", "<|image|>")
    settings = {"chat_template": template, "bos_token": "<bos>", "extra_special_tokens": HEARING}
    return settings, config, Model(described)


def main(sense: str, demo: Path, folder: Path) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from tokenizers import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = Tokenizer.from_file(str(demo / "tokenizer.json"))
    mx.random.seed(7)
    settings, config, model = {"vision": vision, "positions": positions, "hearing": hearing}[sense](words, folder)
    words.save(str(folder / "tokenizer.json"))
    settings = {**json.loads((demo / "tokenizer_config.json").read_text()), **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    model.update(tree_map(lambda array: mx.random.normal(array.shape, scale=0.2), model.parameters()))
    weights = {name: array.astype(mx.float32) for name, array in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
