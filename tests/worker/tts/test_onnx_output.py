"""Another output for a model, without the package that models are made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localapi.worker.tts.onnx_output import with_input_of, with_output_of
from tests.piper_voice import make_voice


def outputs(model: bytes) -> list[str]:
    return [output.name for output in onnxruntime.InferenceSession(model).get_outputs()]


def test_the_node_is_an_output_and_its_values_are_those_of_the_sound(tmp_path: Path) -> None:
    model = with_output_of("Ceil", make_voice(tmp_path / "voice.onnx").read_bytes())
    assert [output.name for output in onnx.load_from_string(model).graph.output] == ["output", "w_ceil"]
    assert outputs(model) == ["output", "w_ceil"]
    inputs = {"input": np.array([[1, 20, 30, 2]]), "scales": np.array([0.6, 1, 0.8], np.float32)}
    session = onnxruntime.InferenceSession(model)
    sound, frames = session.run(None, {**inputs, "input_lengths": np.array([4])})
    assert frames.sum() * 64 == sound.size


def test_what_the_node_gets_is_an_output_too(tmp_path: Path) -> None:
    model = with_output_of("Ceil", make_voice(tmp_path / "voice.onnx").read_bytes())
    assert outputs(with_input_of("Ceil", model)) == ["output", "w_ceil", "scaled_frames"]


def test_an_output_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    model = make_voice(tmp_path / "voice.onnx", aligned=True).read_bytes()
    assert with_output_of("Ceil", model) == model


@pytest.mark.parametrize("operator", ["Conv", "Cast"])
def test_a_model_without_one_such_node_is_refused(tmp_path: Path, operator: str) -> None:
    with pytest.raises(ValueError, match="not one"):
        with_output_of(operator, make_voice(tmp_path / "voice.onnx").read_bytes())


@given(st.binary())
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match=r"not one|no protobuf"):
        with_output_of("Ceil", junk)
