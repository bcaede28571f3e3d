"""Split a model: the possible ways for its shapes, and this process's part of it.

*tensor*: every rank has a share of each layer's heads and neurons, and all compute at the same time. *pipeline*: every
rank has some of the layers, and computes after the previous rank. mlx-lm's models define which they support.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from localapi.worker.model import CannotLoad, first_line

Split = Literal["tensor", "pipeline"]

MOST_RANKS: Final = 16
"""Maximum processes that an error message offers."""
_COUNTS: Final = (
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "moe_intermediate_size",
    "linear_num_key_heads",
    "linear_num_value_heads",
)
"""Numbers in a config of which every rank of a tensor split gets an equal share."""


@dataclass(frozen=True)
class ModelPart:
    """Part of a model that this process holds."""

    how: Split
    ranks: int
    layers: int
    """The layers that this process holds, of `all_layers`."""
    all_layers: int
    uniform: bool
    """True if every layer keeps every token, so that all ranks can use the same prefixes of prompts."""

    @property
    def share(self) -> float:
        """Share of the memory for conversations that this process gets."""
        return 1 / self.ranks if self.how == "tensor" else self.layers / self.all_layers

    @property
    def says(self) -> str:
        """Note for users."""
        note = f"Split over {self.ranks} processes by {self.how}"
        if self.how == "pipeline" and not self.uniform:
            return f"{note}; prompts are always computed from their start, because some layers forget tokens"
        return note

    def prefix_bytes(self, max_bytes: int) -> int:
        """Return this rank's limit for prefixes, so that all ranks evict the same ones."""
        if self.how == "tensor":
            return max_bytes // self.ranks
        # A layer's share times the layers, because it is compared with a multiple of the layers.
        return max_bytes // self.all_layers * self.layers if self.uniform else 0


def tensor_problem(config: Mapping[str, Any], ranks: int) -> str:
    """Return which of the model's shapes cannot be divided by this many ranks; empty if all can."""
    shapes = {**config, **(config.get("text_config") or {})}
    for name in _COUNTS:
        count = shapes.get(name)
        if isinstance(count, int) and count % ranks:
            return f"its {name} is {count}"
    quantization = config.get("quantization") or shapes.get("quantization")
    group = quantization.get("group_size") if isinstance(quantization, Mapping) else None
    if isinstance(group, int):
        for name, width in _inputs(shapes).items():
            if width // ranks % group:
                return f"its {name} is {width} and its weights are quantized in groups of {group}"
    return ""


def _inputs(shapes: Mapping[str, Any]) -> dict[str, int]:
    """Return the widths of the inputs that a tensor split divides."""
    found = {name: shapes[name] for name in ("intermediate_size", "moe_intermediate_size") if shapes.get(name)}
    heads, width = shapes.get("num_attention_heads"), shapes.get("head_dim")
    if heads and not width and shapes.get("hidden_size"):
        width = shapes["hidden_size"] // heads
    if heads and width:
        found["width of all heads"] = heads * width
    return found


def ways(model: Any, config: Mapping[str, Any], ranks: int) -> list[Split]:
    """Return how the model can be split over this many ranks, the faster way first."""
    found: list[Split] = []
    if hasattr(model, "shard") and not tensor_problem(config, ranks):
        found.append("tensor")
    if hasattr(getattr(model, "model", None), "pipeline") and ranks <= len(model.layers):
        found.append("pipeline")
    return found


def choose(model: Any, config: Mapping[str, Any], ranks: int, asked: str) -> Split:
    """Return how to split the model; `asked` is the option `split`. Raise CannotLoad with the possibilities."""
    found = ways(model, config, ranks)
    if asked == "auto" and found:
        return found[0]
    for way in found:
        if way == asked:
            return way
    raise CannotLoad(_refusal(model, config, ranks, asked))


def _refusal(model: Any, config: Mapping[str, Any], ranks: int, asked: str) -> str:
    kind = config.get("model_type")
    reason = f"mlx-lm cannot split a model of the type {kind}"
    if hasattr(model, "shard") and asked != "pipeline":
        reason = f"{tensor_problem(config, ranks)}, which {ranks} processes cannot share"
    elif asked != "auto":
        reason = f"mlx-lm has no {asked} split for the type {kind}"
    offers = []
    counts = [str(count) for count in range(2, MOST_RANKS + 1) if "tensor" in ways(model, config, count)]
    if counts:
        offers.append(f"split: tensor over {' or '.join(counts)}")
    if "pipeline" in ways(model, config, 2):
        offers.append(f"split: pipeline over 2 to {len(model.layers)}")
    advice = f"Possible: {'; '.join(offers)}" if offers else "Remove shards"
    by = "" if asked == "auto" else f" by {asked}"
    return f"shards: this model cannot be split over {ranks} processes{by}: {reason}. {advice}."


def split(model: Any, how: Split, group: mx.distributed.Group) -> ModelPart:
    """Keep this rank's part of a model whose weights have not been read. Raise CannotLoad."""
    total = len(model.layers)
    uniform = all(type(cache) is KVCache for cache in make_prompt_cache(model))
    try:
        if how == "tensor":
            model.shard(group)
        else:
            model.model.pipeline(group)
    except Exception as error:  # from the architecture
        raise CannotLoad(
            f"shards: mlx-lm could not split this model over {group.size()} processes by {how}: {first_line(error)}. "
            "Use another number of shards, another split, or none."
        ) from error
    return ModelPart(how, group.size(), len(model.layers), total, uniform)
