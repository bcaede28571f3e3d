"""Make a tiny model that sees and hears, with random weights: a Gemma 4 with the demo model's words.

Runs in mlx-vlm's environment: `python tiny_hearing.py DEMO FOLDER`
"""

# ruff: noqa: PLC0415  # the packages are those of the environment

from __future__ import annotations

import json
import sys
from pathlib import Path

TOKENS = {
    "boi_token": "<|image>", "image_token": "<|image|>", "eoi_token": "<image|>", "boa_token": "<|audio>",
    "audio_token": "<|audio|>", "eoa_token": "<audio|>", "video_token": "<|video|>",
}  # fmt: skip
TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|image|>' }}{%- elif part.type == 'audio' %}{{- '<|audio|>' }}"
    "{%- elif part.text is defined %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def main(demo: Path, folder: Path) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_vlm.models.gemma4 import AudioConfig, Model, ModelConfig, TextConfig, VisionConfig
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    folder.mkdir(parents=True, exist_ok=True)
    words = Tokenizer.from_file(str(demo / "tokenizer.json"))
    words.add_special_tokens([*TOKENS.values(), "<bos>"])
    first = ("<bos>", words.token_to_id("<bos>"))  # which Gemma's tokenizer adds, and its template, too
    words.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[first])
    words.save(str(folder / "tokenizer.json"))
    numbers = {name: words.token_to_id(token) for name, token in TOKENS.items()}
    settings = json.loads((demo / "tokenizer_config.json").read_text())
    settings |= {"chat_template": TEMPLATE, "bos_token": "<bos>", "extra_special_tokens": TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    text = {
        "model_type": "gemma4_text", "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16,
        "vocab_size": words.get_vocab_size(), "vocab_size_per_layer_input": words.get_vocab_size(),
        "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "sliding_window": 512,
        "sliding_window_pattern": 2, "max_position_embeddings": 2048, "use_double_wide_mlp": False,
    }  # fmt: skip
    vision = {
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
        "vision_config": vision, "audio_config": audio, "vocab_size": words.get_vocab_size(), "hidden_size": 64,
        "image_token_id": numbers["image_token"], "audio_token_id": numbers["audio_token"],
        "video_token_id": numbers["video_token"], "eos_token_id": 1, "vision_soft_tokens_per_image": 70,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    images = {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 70}
    processor = {"processor_class": "Gemma4Processor", "image_processor": images}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    mx.random.seed(7)
    described = ModelConfig.from_dict(dict(config))
    described.text_config = TextConfig.from_dict(dict(text))
    described.vision_config = VisionConfig.from_dict(dict(vision))
    described.audio_config = AudioConfig.from_dict(dict(audio))
    model = Model(described)
    model.update(tree_map(lambda array: mx.random.normal(array.shape, scale=0.2), model.parameters()))
    weights = {name: array.astype(mx.float32) for name, array in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
