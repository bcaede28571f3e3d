"""Environments and models for the tests of mlx-audio and mlx-audio-plus; tests/conftest.py makes fixtures of them.

The environments are really installed, once: into LOCALAPI_ENVIRONMENTS, or into pytest's cache, where the next run
finds them. The tests' own architectures are in a thin environment over each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localapi.environments import Environment

ROOT = Path(__file__).parent.parent
PACKAGES = ("mlx-audio-plus", "mlx-audio")
INSTALL_SECONDS = 1800
"""With a network that is slow, and nothing in uv's cache."""

_BEGIN = """
import sys, json, importlib
from pathlib import Path
import mlx.core as mx
from mlx.utils import tree_flatten
folder, kind = Path(sys.argv[1]), sys.argv[2]
"""
_BUILD = """
architecture = importlib.import_module(f"mlx_audio.tts.models.{kind}")
config = architecture.ModelConfig.from_dict(json.loads((folder / "config.json").read_text()))
mx.random.seed(0)
weights = dict(tree_flatten(architecture.Model(config).parameters()))
"""
_SAVE = 'mx.save_safetensors(str(folder / "model.safetensors"), weights)\n'

_SOPRANO = {
    "model_type": "soprano",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "sample_rate": 32000,
}
_SOPRANO_TOKENIZER = """
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
special = ["[STOP]", "[TEXT]", "[START]", "[EOS]", "[UNK]"]
vocabulary = {token: at for at, token in enumerate([*special, *map(chr, range(32, 127))])}
characters = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=characters, unk_token="[UNK]", eos_token="[EOS]", pad_token="[STOP]",
    additional_special_tokens=["[TEXT]", "[START]"],
)
tokenizer.save_pretrained(folder)
"""
# A constant in what the layers hand on, which the last layer turns into "never": it would stop at once now and then.
_SOPRANO_NEVER_STOPS = """
embedding = weights["language_model.embed_tokens.weight"]
weights["language_model.embed_tokens.weight"] = mx.concatenate(
    [mx.full((embedding.shape[0], 1), 50.0), embedding[:, 1:]], axis=1)
head = weights["language_model.lm_head.weight"]
never = mx.zeros((head.shape[0], 1))
never[[vocabulary["[STOP]"], vocabulary["[EOS]"]], 0] = -100.0
weights["language_model.lm_head.weight"] = mx.concatenate([never, head[:, 1:]], axis=1)
weights = {name: array.astype(mx.float16) for name, array in weights.items()}
"""


def named(name: str, folder: Path) -> Environment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALAPI_ENVIRONMENTS", str(folder))
        return Environment.named(name)


def installed(name: str, folder: Path) -> Environment:
    """The environment, installed as a person does it."""
    environment = named(name, folder)
    if not environment.ready:
        subprocess.run(
            [sys.executable, "-m", "localapi", "install", name],
            check=True,
            cwd=ROOT,
            env={**os.environ, "LOCALAPI_ENVIRONMENTS": str(folder)},
            timeout=INSTALL_SECONDS,
        )
    return environment


def with_architectures(environment: Environment, folder: Path) -> Environment:
    """A thin environment below `folder` that has the packages of this one, and the tests' architectures."""
    thin = named(environment.name, folder)
    (packages,) = environment.folder.glob("lib/python*/site-packages")
    own = thin.folder / packages.relative_to(environment.folder)
    own.mkdir(parents=True)
    (own / "tests.pth").write_text(f"{packages}\n{Path(__file__).parent}\nimport architectures\n")
    (thin.folder / "pyvenv.cfg").write_text((environment.folder / "pyvenv.cfg").read_text())
    thin.interpreter.parent.mkdir()
    thin.interpreter.symlink_to(environment.interpreter.resolve())
    return thin


def model(environment: Environment, folder: Path, kind: str, **config: object) -> Path:
    """A model of one of the tests' architectures."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **config}))
    _run(environment, _BEGIN + _BUILD + _SAVE, folder, kind)
    return folder


def soprano(environment: Environment, folder: Path) -> Path:
    """A real Soprano with random weights (27 MB): noise, at about the speed at which it sounds."""
    folder.mkdir(parents=True)
    # Its decoder's size is chosen by the folder's name.
    (folder / "config.json").write_text(json.dumps({**_SOPRANO, "vocab_size": 100, "model_path": str(folder)}))
    _run(environment, _BEGIN + _SOPRANO_TOKENIZER + _BUILD + _SOPRANO_NEVER_STOPS + _SAVE, folder, "soprano")
    return folder


def _run(environment: Environment, code: str, folder: Path, kind: str) -> None:
    subprocess.run([environment.interpreter, "-I", "-c", code, folder, kind], check=True)
