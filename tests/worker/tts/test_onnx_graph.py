"""Another output for a model, without the package that models are made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from localapi.worker.tts.onnx_graph import with_end_of, with_same_noise
from tests.piper_voice import make_voice


def outputs(model: bytes) -> list[str]:
    return [output.name for output in onnxruntime.InferenceSession(model).get_outputs()]


def test_the_node_is_an_output_and_its_values_are_those_of_the_sound(tmp_path: Path) -> None:
    model = with_end_of("Ceil", "output", make_voice(tmp_path / "voice.onnx").read_bytes())
    assert [output.name for output in onnx.load_from_string(model).graph.output] == ["output", "w_ceil"]
    assert outputs(model) == ["output", "w_ceil"]
    inputs = {"input": np.array([[1, 20, 30, 2]]), "scales": np.array([0.6, 1, 0.8], np.float32)}
    session = onnxruntime.InferenceSession(model)
    sound, frames = session.run(None, {**inputs, "input_lengths": np.array([4])})
    assert frames.sum() * 64 == sound.size


def test_what_the_node_gets_is_an_output_too(tmp_path: Path) -> None:
    model = with_end_of("Ceil", "output", make_voice(tmp_path / "voice.onnx").read_bytes())
    assert outputs(with_end_of("Ceil", "input", model)) == ["output", "w_ceil", "scaled_frames"]


def test_an_output_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    model = make_voice(tmp_path / "voice.onnx", aligned=True).read_bytes()
    assert with_end_of("Ceil", "output", model) == model


@pytest.mark.parametrize("operator", ["Conv", "Cast"])
def test_a_model_without_one_such_node_is_refused(tmp_path: Path, operator: str) -> None:
    with pytest.raises(ValueError, match="not one"):
        with_end_of(operator, "output", make_voice(tmp_path / "voice.onnx").read_bytes())


@given(st.binary())
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match=r"not one|no protobuf"):
        with_end_of("Ceil", "output", junk)


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
