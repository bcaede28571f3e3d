"""Noise that only depends on what is said, checked by ONNX Runtime itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from localapi.worker.tts.onnx_noise import with_same_noise
from tests.piper_voice import make_voice


@pytest.fixture
def drawing() -> bytes:
    """A model that gives two rows of noise, in the shape of its input."""
    nodes = [
        helper.make_node("Cast", ["input"], ["like"], to=TensorProto.FLOAT),
        helper.make_node("RandomNormalLike", ["like"], ["one"], dtype=TensorProto.FLOAT),
        helper.make_node("RandomNormalLike", ["like"], ["other"]),
    ]
    shape = ["batch", "phonemes"]
    inputs = [helper.make_tensor_value_info("input", TensorProto.INT64, shape)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("one", "other")]
    graph = helper.make_graph(nodes, "noise", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    return model.SerializeToString()


def run(model: bytes, ids: np.ndarray[Any, Any]) -> list[Any]:
    return onnxruntime.InferenceSession(model).run(None, {"input": ids})  # type: ignore[no-any-return]


def test_the_same_input_gets_the_same_noise_and_another_input_another(drawing: bytes) -> None:
    model = with_same_noise(drawing, "input")
    onnx.checker.check_model(onnx.load_from_string(model))
    first, second = run(model, np.array([[1, 2, 3]])), run(model, np.array([[1, 2, 3]]))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, run(model, np.array([[1, 2, 4]])))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(run(drawing, np.array([[1, 2, 3]])), first)


@pytest.mark.parametrize("length", [10_000, 600_000])
def test_it_is_normal_noise_in_the_shape_of_its_model(drawing: bytes, length: int) -> None:
    for noise in run(with_same_noise(drawing, "input"), np.ones((2, length), np.int64)):
        assert noise.shape == (2, length)
        assert noise.mean() == pytest.approx(0, abs=0.03)
        assert noise.std() == pytest.approx(1, abs=0.03)


def test_a_model_that_draws_nothing_stays_as_it_is(tmp_path: Path) -> None:
    model = make_voice(tmp_path / "voice.onnx").read_bytes()
    assert with_same_noise(model, "input") == model
