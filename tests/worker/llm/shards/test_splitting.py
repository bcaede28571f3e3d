"""Ways to split a model, and the error if there is none."""

from __future__ import annotations

from typing import Any

import pytest

from localapi.worker.llm.shards.splitting import ModelPart, choose, tensor_problem, ways
from localapi.worker.model import CannotLoad

pytestmark = pytest.mark.everyday

SHAPES = {"num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 256, "hidden_size": 128}


class Inner:
    def pipeline(self) -> None: ...


class Model:
    """An architecture as far as the choice looks at it."""

    def __init__(self, *, tensor: bool, pipeline: bool, layers: int = 6) -> None:
        self.layers = [None] * layers
        self.model = Inner() if pipeline else object()
        if tensor:
            self.shard = lambda: None


BOTH, TENSOR, PIPELINE = (
    Model(tensor=True, pipeline=True),
    Model(tensor=True, pipeline=False),
    Model(tensor=False, pipeline=True),
)


@pytest.mark.parametrize(
    ("config", "ranks", "named"),
    [
        (SHAPES, 2, ""),
        (SHAPES, 4, ""),
        (SHAPES, 8, "num_key_value_heads"),
        (SHAPES, 3, "num_attention_heads"),
        ({**SHAPES, "intermediate_size": 257}, 2, "intermediate_size"),
        ({"text_config": SHAPES}, 8, "num_key_value_heads"),
        ({**SHAPES, "quantization": {"group_size": 64, "bits": 4}}, 2, ""),
        ({**SHAPES, "quantization": {"group_size": 64, "bits": 4}}, 4, "width of all heads"),
        ({**SHAPES, "head_dim": 64, "quantization": {"group_size": 128, "bits": 4}}, 4, "intermediate_size"),
        ({}, 5, ""),
    ],
)
def test_a_tensor_split_needs_shapes_that_all_ranks_can_share(config: dict[str, Any], ranks: int, named: str) -> None:
    problem = tensor_problem(config, ranks)
    assert named in problem
    assert bool(problem) == bool(named)


@pytest.mark.parametrize(
    ("model", "ranks", "found"),
    [
        (BOTH, 2, ["tensor", "pipeline"]),
        (BOTH, 3, ["pipeline"]),
        (TENSOR, 4, ["tensor"]),
        (TENSOR, 8, []),
        (PIPELINE, 6, ["pipeline"]),
        (PIPELINE, 7, []),
    ],
)
def test_the_ways_follow_from_the_architecture_and_the_shapes(model: Model, ranks: int, found: list[str]) -> None:
    assert ways(model, SHAPES, ranks) == found


def test_auto_is_tensor_if_that_is_possible() -> None:
    assert choose(BOTH, SHAPES, 2, "auto") == "tensor"
    assert choose(BOTH, SHAPES, 3, "auto") == "pipeline"
    assert choose(BOTH, SHAPES, 2, "pipeline") == "pipeline"


@pytest.mark.parametrize(
    ("model", "ranks", "asked", "offers"),
    [
        (TENSOR, 8, "auto", ["num_key_value_heads", "tensor over 2 or 4"]),
        (TENSOR, 2, "pipeline", ["tensor over 2 or 4"]),
        (PIPELINE, 2, "tensor", ["pipeline over 2 to 6"]),
        (BOTH, 3, "tensor", ["num_attention_heads", "tensor over 2 or 4", "pipeline over 2 to 6"]),
        (Model(tensor=False, pipeline=False), 2, "auto", ["Remove shards"]),
    ],
)
def test_what_cannot_be_split_is_refused_with_what_is_possible(
    model: Model, ranks: int, asked: str, offers: list[str]
) -> None:
    with pytest.raises(CannotLoad) as refused:
        choose(model, SHAPES, ranks, asked)
    for each in offers:
        assert each in str(refused.value)


def test_ranks_of_a_pipeline_evict_the_same_prefixes_although_they_hold_different_layers() -> None:
    parts = [ModelPart("pipeline", 3, layers, 7, uniform=True) for layers in (3, 2, 2)]
    limits = [part.prefix_bytes(1000) for part in parts]
    for tokens in range(1, 300):
        assert len({tokens * part.layers > limit for part, limit in zip(parts, limits, strict=True)}) == 1
    assert sum(limits) <= 1000
    assert sum(part.share for part in parts) == pytest.approx(1)
