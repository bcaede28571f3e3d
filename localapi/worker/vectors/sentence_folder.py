"""Settings for embedding a text, from a model folder in sentence-transformers' layout.

`modules.json` lists the steps after the network: pooling, dense layers, normalization. Its folders describe each.
Source: https://github.com/UKPLab/sentence-transformers (`models/Pooling.py`, `models/Dense.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file

from localapi.worker.model import CannotLoad, first_line, read_json
from localapi.worker.vectors.batches import Vectors

POOLINGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
PATTERNS: Final = ("*.json", "*.txt", "*.model", "*/config.json", "*_Dense/*.safetensors")
"""Files of a repository that describe a model."""


@dataclass(frozen=True)
class Dense:
    """A layer after pooling."""

    weight: Vectors
    bias: Vectors | None
    tanh: bool

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return the output of the layer for each row."""
        out = vectors @ self.weight.T
        if self.bias is not None:
            out = out + self.bias
        return np.tanh(out) if self.tanh else out


@dataclass(frozen=True)
class SentenceFolder:
    """The description of an embedding model."""

    folder: Path
    config: dict[str, Any]
    pooling: str | None
    """cls, mean, max or last; None if the folder does not state it."""
    dense: tuple[Dense, ...]
    max_tokens: int | None


def described(folder: Path) -> SentenceFolder:
    """Return the settings in a folder. Raise CannotLoad for an unknown step or an invalid file."""
    config = read_json(folder / "config.json")
    modules = read_json(folder / "modules.json", default=[])
    pooling: str | None = None
    dense: list[Dense] = []
    for module in modules[1:]:
        kind = str(module.get("type", "")).rpartition(".")[2]
        place = folder / str(module.get("path", ""))
        if kind == "Pooling":
            pooling = _pooling(read_json(place / "config.json"), place)
        elif kind == "Dense":
            dense.append(_dense(place))
        elif kind != "Normalize":
            raise CannotLoad(f"{folder / 'modules.json'} has a step {kind!r}, which localapi does not support.")
    limits = [
        read_json(folder / "sentence_bert_config.json", default={}).get("max_seq_length"),
        config.get("max_position_embeddings"),
    ]
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return SentenceFolder(folder, config, pooling, tuple(dense), min(known, default=None))


def _pooling(config: dict[str, Any], place: Path) -> str:
    chosen = [name for key, name in POOLINGS.items() if config.get(key)]
    if config.get("pooling_mode") in POOLINGS.values():  # newer versions write one word
        chosen = [config["pooling_mode"]]
    if len(chosen) != 1:
        known = ", ".join(POOLINGS.values())
        raise CannotLoad(f"{place / 'config.json'} should set one of the poolings {known}; found {chosen or 'none'}.")
    return chosen[0]


def _dense(place: Path) -> Dense:
    config = read_json(place / "config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.linear.Identity")).rpartition(".")[2]
    if activation not in ("Identity", "Tanh"):
        raise CannotLoad(f"{place / 'config.json'} has the activation {activation!r}, which localapi does not support.")
    try:
        weights = load_file(place / "model.safetensors")
        weight = weights["linear.weight"].astype(np.float32)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CannotLoad(f"{place / 'model.safetensors'} cannot be read: {first_line(error)}.") from error
    bias = weights.get("linear.bias")
    return Dense(weight, None if bias is None else bias.astype(np.float32), activation == "Tanh")
