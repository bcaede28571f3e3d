"""A model whose numbers two or three processes can share, and which has never learnt anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import qwen2

from localapi.backends.model_path import DEMO_FOLDER

CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "rms_norm_eps": 1e-6,
    "vocab_size": 768,
    "max_position_embeddings": 2048,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
}


def make(folder: Path) -> None:
    """Write the model, with the tokenizer and the template of the included one."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO_FOLDER / name, folder)
    mx.random.seed(3)
    model = qwen2.Model(qwen2.ModelArgs.from_dict(CONFIG))
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"}
    )
    (folder / "config.json").write_text(json.dumps(CONFIG))
