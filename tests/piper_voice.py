"""Piper voices made here: the graph of a voice with tones for sounds, run by the real `PiperVoice`.

A phoneme is a tone whose pitch is its number, held for a little more than three, six or nine frames, rounded up as real
voices do; so the length follows the phonemes, and the length scale not quite, and what was said can be read from the
samples. Of Piper's inputs and outputs nothing is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP

HOP: Final = 64
"""Samples of a frame."""
SHORTEST_FRAMES: Final = 3.1
"""Frames of the shortest phonemes; the others take twice and three times as many. Rounded up, they last too long at a
high speed and not long enough at a low one."""
FIRST_SOUND: Final = 3
"""Number of the first phoneme that is no padding."""
BASE_HZ, STEP_HZ, SPEAKER_HZ = 90.0, 7.0, 120.0
"""A phoneme's pitch: the base, so much for its number, and so much for the speaker's."""
_CHANNELS: Final = (256, 128, 64, 32)
_STRIDES: Final = (4, 4, 4)
_KERNELS: Final = (3, 5, 7)
"""Kernels of the vocoder in a voice of quality "medium"."""


def make_voice(
    path: Path,
    *,
    speakers: int = 1,
    named: bool = True,
    aligned: bool = False,
    laborious: bool = False,
    sample_rate_hz: int = 16_000,
    amplitude: float = 0.5,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a voice and its configuration, of which `config` replaces parts, and give the path again.

    `aligned`: how long each phoneme takes is an output. `laborious`: it computes as much as a voice of medium quality,
    to measure with.
    """
    graph = _Graph(sample_rate_hz, amplitude)
    graph.sound(speakers)
    if laborious:
        graph.vocoder()
    path.write_bytes(graph.model(speakers, aligned=aligned).SerializeToString())
    names = {f"speaker{number}": number for number in range(speakers)} if named and speakers > 1 else {}
    whole = {**_config(sample_rate_hz, speakers, names), **(config or {})}
    path.with_name(f"{path.name}.json").write_text(json.dumps(whole, ensure_ascii=False), "utf-8")
    return path


def _config(sample_rate_hz: int, speakers: int, names: Mapping[str, int]) -> dict[str, Any]:
    return {
        "audio": {"sample_rate": sample_rate_hz, "quality": "x_low"},
        "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_type": "espeak",
        "phoneme_id_map": DEFAULT_PHONEME_ID_MAP,
        "num_symbols": 256,
        "num_speakers": speakers,
        "speaker_id_map": names,
        "language": {"code": "en_US"},
        "dataset": "tiny",
        "hop_length": HOP,
    }


class _Graph:
    """A graph that grows node by node; a node's output has the name that it is given."""

    def __init__(self, sample_rate_hz: int, amplitude: float) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(1)
        for name, value in {"zero": 0, "one": 1, "three": 3, "hop": HOP, "first_sound": FIRST_SOUND}.items():
            self._constant(name, np.int64(value))
        axes = {"to_1d": [-1], "axis_0": [0], "axis_1": [1]}
        for name, values in {**axes, "by_hop": [1, HOP], "out": [1, 1, 1, -1]}.items():
            self._constant(name, np.array(values, np.int64))
        floats = {
            "shortest": SHORTEST_FRAMES,
            "base": BASE_HZ,
            "step": STEP_HZ,
            "one_f": 1.0,
            "zero_f": 0.0,
            "amplitude": amplitude,
        }
        for name, value in {**floats, "radians": 2 * np.pi / sample_rate_hz}.items():
            self._constant(name, np.float32(value))

    def sound(self, speakers: int) -> None:
        """Tones for `input`, at `scales` and for speaker `sid`, as `samples`."""
        self._node("Reshape", "ids", "input", "to_1d")
        self._node("Gather", "length_scale", "scales", "one", axis=0)
        self._node("Mod", "id_mod_3", "ids", "three")
        self._node("Add", "times", self._float("id_mod_3"), "one_f")
        self._node("Mul", "frames", "times", "shortest")
        self._node("Mul", "scaled_frames", "frames", "length_scale")
        self._node("Ceil", "w_ceil", "scaled_frames")
        self._node("CumSum", "ends", "w_ceil", "zero")
        self._node("ReduceSum", "total", "w_ceil", "axis_0", keepdims=0)
        self._node("Cast", "frame_count", "total", to=TensorProto.INT64)
        self._node("Range", "frame", "zero", "frame_count", "one")
        self._node("Unsqueeze", "frame_column", self._float("frame"), "axis_1")
        self._node("Unsqueeze", "ends_row", "ends", "axis_0")
        self._node("GreaterOrEqual", "past", "frame_column", "ends_row")
        self._node("Cast", "past_count", "past", to=TensorProto.INT64)
        self._node("ReduceSum", "which", "past_count", "axis_1", keepdims=0)
        self._node("Gather", "id_of_frame", "ids", "which", axis=0)
        self._node("Unsqueeze", "id_column", "id_of_frame", "axis_1")
        self._node("Expand", "id_by_hop", "id_column", "by_hop")
        self._node("Reshape", "id_of_sample", "id_by_hop", "to_1d")
        self._node("Mul", "sample_count", "frame_count", "hop")
        self._node("Range", "sample", "zero", "sample_count", "one")
        self._node("Mul", "raised", self._float("id_of_sample"), "step")
        self._node("Add", "pitch_of_first", "raised", "base")
        pitch = "pitch_of_first"
        if speakers > 1:
            self._constant("speaker_pitch", SPEAKER_HZ * np.arange(speakers, dtype=np.float32))
            self._node("Gather", "added", "speaker_pitch", "sid", axis=0)
            pitch = self._node("Add", "pitch", "pitch_of_first", "added")
        self._node("Mul", "turns", pitch, self._float("sample"))
        self._node("Mul", "angle", "turns", "radians")
        self._node("Sin", "wave", "angle")
        self._node("Mul", "loud", "wave", "amplitude")
        self._node("GreaterOrEqual", "sounds", "id_of_sample", "first_sound")
        self._node("Where", "samples", "sounds", "loud", "zero_f")

    def vocoder(self) -> None:
        """The convolutions of a HiFi-GAN over the frames, of which nothing is heard."""
        self._constant("as_channel", np.array([1, 1, -1], np.int64))
        self._node("Reshape", "mel", self._float("id_of_frame"), "as_channel")
        last = self._convolution("mel", 1, _CHANNELS[0], 7)
        for before, after, stride in zip(_CHANNELS, _CHANNELS[1:], _STRIDES, strict=False):
            kernel = self._constant(f"up_{after}", self._weights(before, after, 2 * stride))
            pads = [stride // 2, stride - stride // 2]
            up = self._node("ConvTranspose", f"raised_{after}", last, kernel, strides=[stride], pads=pads)
            blocks = [self._residual(up, after, size) for size in _KERNELS]
            last = self._node("Sum", f"blocks_{after}", *blocks)
        work = self._convolution(last, _CHANNELS[-1], 1, 7)
        self._node("Reshape", "work", work, "to_1d")
        self._node("Mul", "silence", "work", "zero_f")
        self._node("Identity", "tones", "samples")
        self._node("Add", "worked_samples", "tones", "silence")

    def model(self, speakers: int, *, aligned: bool) -> onnx.ModelProto:
        """The whole, checked."""
        names = {node.output[0] for node in self._nodes}
        samples = "worked_samples" if "worked_samples" in names else "samples"
        self._node("Gather", "noise_scale", "scales", "zero", axis=0)
        self._node("Mul", "no_noise", "noise_scale", "zero_f")
        self._node("Add", "noisy", samples, "no_noise")
        self._node("Reshape", "output", "noisy", "out")
        inputs = [
            helper.make_tensor_value_info("input", TensorProto.INT64, ["batch_size", "phonemes"]),
            helper.make_tensor_value_info("input_lengths", TensorProto.INT64, ["batch_size"]),
            helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
        ]
        if speakers > 1:
            inputs.append(helper.make_tensor_value_info("sid", TensorProto.INT64, ["batch_size"]))
        outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, "time"])]
        if aligned:
            outputs.append(helper.make_tensor_value_info("w_ceil", TensorProto.FLOAT, ["phonemes"]))
        graph = helper.make_graph(self._nodes, "voice", inputs, outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return model

    def _constant(self, name: str, value: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, operator: str, output: str, *inputs: str, **attributes: int | Iterable[int]) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=f"make_{output}", **attributes))
        return output

    def _float(self, name: str) -> str:
        return self._node("Cast", f"{name}_f", name, to=TensorProto.FLOAT)

    def _weights(self, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return (self._random.standard_normal(shape) / np.prod(shape[1:])).astype(np.float32)

    def _convolution(self, source: str, before: int, after: int, size: int) -> str:
        name = f"{source}_by_{size}"
        kernel = self._constant(f"{name}_kernel", self._weights(after, before, size))
        return self._node("Conv", name, source, kernel, pads=[size // 2, size // 2])

    def _residual(self, source: str, channels: int, size: int) -> str:
        active = self._node("LeakyRelu", f"{source}_active_{size}", source)
        first = self._convolution(active, channels, channels, size)
        second = self._convolution(first, channels, channels, size)
        return self._node("Add", f"{source}_sum_{size}", source, second)
