"""Make a tiny vision model with random weights: a Qwen2-VL with the demo model's words. Runs in mlx-vlm's environment.

`python tiny_vision.py DEMO FOLDER`
"""

# ruff: noqa: PLC0415  # the packages are those of the environment

from __future__ import annotations

import json
import sys
from pathlib import Path

TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{%- if tools %}{{- '<|im_start|>system\\n# Tools\\n<tools>' + (tools | tojson) + '</tools>\\n"
    '<tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n\' }}{%- endif %}'
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.text is defined %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def main(demo: Path, folder: Path) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_vlm.models.qwen2_vl import Model, ModelConfig, TextConfig, VisionConfig
    from tokenizers import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = Tokenizer.from_file(str(demo / "tokenizer.json"))
    words.add_special_tokens(list(TOKENS))
    words.save(str(folder / "tokenizer.json"))
    start, _, image, video = (words.token_to_id(token) for token in TOKENS)
    settings = json.loads((demo / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))
    config = {
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
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor", "patch_size": 14,
        "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 784, "max_pixels": 50176, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    mx.random.seed(7)
    described = ModelConfig.from_dict(dict(config))
    described.text_config = TextConfig.from_dict(dict(config))
    described.vision_config = VisionConfig.from_dict(dict(config["vision_config"]))
    model = Model(described)
    model.update(tree_map(lambda array: mx.random.normal(array.shape, scale=0.2), model.parameters()))
    weights = {name: array.astype(mx.float32) for name, array in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
