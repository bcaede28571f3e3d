"""The network of BERT and its relatives, as an ONNX graph made from a folder's safetensors.

Repositories on the Hub contain the weights as safetensors; ONNX Runtime runs graphs. The layers are those of the paper
(https://arxiv.org/abs/1810.04805); the names of the weights are those of transformers. The weights are not part of the
graph, which may not be larger than 2 GB: ONNX Runtime gets them separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from localapi.worker.model import CannotLoad, first_line
from localapi.worker.onnx_messages import FLOAT, INT64, ONNX

ROBERTAS: Final = ("roberta", "xlm-roberta", "camembert")
"""Families whose positions start after the padding's."""
FAMILIES: Final = ("bert", *ROBERTAS, "distilbert")
"""`model_type` in config.json."""
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
HIDDEN, LOGITS = "last_hidden_state", "logits"
Weights = Mapping[str, npt.NDArray[Any]]

_OPSET, _IR_VERSION = 17, 9
_SMALL: Final = 1024
"""Maximum numbers of a value that is part of the graph. ONNX Runtime must know some values, such as shapes, beforehand.
"""
_ACTIVATIONS: Final = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True)
class Graph:
    """Graph and its weights."""

    model: bytes
    weights: dict[str, npt.NDArray[Any]]
    output: str


@dataclass(frozen=True)
class Layer:
    """Names of one layer's weights, without `.weight` and `.bias`."""

    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    inner: str
    outer: str
    norm: str


BERT: Final = Layer(
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
DISTILBERT: Final = Layer(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm", "ffn.lin1",
    "ffn.lin2", "output_layer_norm",
)  # fmt: skip


def bert_graph(folder: Path, config: Mapping[str, Any]) -> Graph:
    """Return the graph of a folder's model: its hidden states, or the logits of a classifier. Raise CannotLoad."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise CannotLoad(
            f"{folder / 'config.json'} has model_type {kind!r}; of safetensors, the backend onnx reads "
            f"{', '.join(FAMILIES)}. Use a model with a file onnx/model.onnx."
        )
    weights: dict[str, npt.NDArray[Any]] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            weights.update(load_file(file))
        except Exception as error:  # safetensors raises its own, and TypeError for bfloat16
            raise CannotLoad(f"{file} cannot be read: {first_line(error)}.") from error
    if not weights:
        raise CannotLoad(f"{folder} contains neither model.safetensors nor onnx/model.onnx.")
    try:
        return _Builder(config, weights).built()
    except KeyError as error:
        raise CannotLoad(f"The weights in {folder} lack {error}. Is this a complete {kind} model?") from error


class _Builder:
    """Graph under construction."""

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._config = config
        self._given = weights
        self._nodes: list[Any] = []
        self._values: dict[str, npt.NDArray[Any]] = {}
        self._prefix = next(
            (name.partition("embeddings.word_embeddings")[0] for name in weights if "word_embeddings" in name), ""
        )
        self._distil = config["model_type"] == "distilbert"
        act = config.get("activation" if self._distil else "hidden_act", "gelu")
        if act not in _ACTIVATIONS:
            raise CannotLoad(f"The model's activation is {act!r}; the backend onnx knows {', '.join(_ACTIVATIONS)}.")
        self._activation = act

    def built(self) -> Graph:
        config = self._config
        heads = config["n_heads" if self._distil else "num_attention_heads"]
        layers = config["n_layers" if self._distil else "num_hidden_layers"]
        out = self._embedded()
        self._constants(heads)
        for index in range(layers):
            place = f"transformer.layer.{index}" if self._distil else f"encoder.layer.{index}"
            out = self._layer(out, f"{self._prefix}{place}", DISTILBERT if self._distil else BERT)
        output = HIDDEN
        if "classifier.weight" in self._given or "classifier.out_proj.weight" in self._given:
            output = self._classifier(out)
        else:
            self._node("Identity", [out], output)
        large = {name: value for name, value in self._values.items() if value.size > _SMALL}
        return Graph(self._model(output), large, output)

    def _embedded(self) -> str:
        place = f"{self._prefix}embeddings"
        words = self._node("Gather", [self._weight(f"{place}.word_embeddings.weight"), IDS])
        table = self._given[f"{place}.position_embeddings.weight"]
        first = 0
        if self._config["model_type"] in ROBERTAS:
            first = int(self._config.get("pad_token_id", 1)) + 1  # positions of real tokens start after the padding's
        self._constant("positions", np.asarray(table[first:], np.float32))
        self._constant("zero", np.array([0], np.int64))
        self._constant("one", np.array([1], np.int64))
        self._constant("two", np.array([2], np.int64))
        length = self._node("Slice", [self._node("Shape", [IDS]), "one", "two"])
        positions = self._node("Slice", ["positions", "zero", length])
        total = self._node("Add", [words, positions])
        types = f"{place}.token_type_embeddings.weight"
        if types in self._given:
            table = self._given[types]
            if len(table) == 1:  # RoBERTa has one type for everything
                table = np.repeat(table, 2, axis=0)
            self._constant("types", np.asarray(table, np.float32))
            total = self._node("Add", [total, self._node("Gather", ["types", TYPES])])
        return self._norm(total, f"{place}.LayerNorm")

    def _constants(self, heads: int) -> None:
        hidden = self._config["dim" if self._distil else "hidden_size"]
        size = hidden // heads
        self._constant("split", np.array([0, 0, heads, size], np.int64))
        self._constant("joined", np.array([0, 0, hidden], np.int64))
        self._constant("scale", np.array(size**-0.5, np.float32))
        self._constant("half", np.array(0.5, np.float32))
        self._constant("unit", np.array(1.0, np.float32))
        self._constant("root", np.array(2**-0.5, np.float32))
        self._constant("cubic", np.array(0.044715, np.float32))
        self._constant("slope", np.array((2 / np.pi) ** 0.5, np.float32))
        self._constant("far", np.array(-1e9, np.float32))
        self._constant("inner_axes", np.array([1, 2], np.int64))
        real = self._node("Cast", [MASK], attributes=[_integer("to", FLOAT)])
        hidden_places = self._node("Mul", [self._node("Sub", ["unit", real]), "far"])
        self._node("Unsqueeze", [hidden_places, "inner_axes"], "bias")

    def _layer(self, x: str, place: str, names: Layer) -> str:
        query = self._heads(self._linear(x, f"{place}.{names.query}"), [0, 2, 1, 3])
        key = self._heads(self._linear(x, f"{place}.{names.key}"), [0, 2, 3, 1])
        value = self._heads(self._linear(x, f"{place}.{names.value}"), [0, 2, 1, 3])
        scores = self._node("Mul", [self._node("MatMul", [query, key]), "scale"])
        shares = self._node("Softmax", [self._node("Add", [scores, "bias"])], attributes=[_integer("axis", -1)])
        mixed = self._node(
            "Transpose", [self._node("MatMul", [shares, value])], attributes=[_integers("perm", [0, 2, 1, 3])]
        )
        joined = self._linear(self._node("Reshape", [mixed, "joined"]), f"{place}.{names.attention_out}")
        x = self._norm(self._node("Add", [joined, x]), f"{place}.{names.attention_norm}")
        inner = self._active(self._linear(x, f"{place}.{names.inner}"))
        outer = self._linear(inner, f"{place}.{names.outer}")
        return self._norm(self._node("Add", [outer, x]), f"{place}.{names.norm}")

    def _heads(self, x: str, order: Sequence[int]) -> str:
        return self._node("Transpose", [self._node("Reshape", [x, "split"])], attributes=[_integers("perm", order)])

    def _active(self, x: str) -> str:
        if self._activation == "relu":
            return self._node("Relu", [x])
        if self._activation == "gelu":
            curve = self._node("Erf", [self._node("Mul", [x, "root"])])
        else:  # the approximation by tanh
            cube = self._node("Mul", [self._node("Mul", [self._node("Mul", [x, x]), x]), "cubic"])
            curve = self._node("Tanh", [self._node("Mul", [self._node("Add", [x, cube]), "slope"])])
        return self._node("Mul", [self._node("Mul", [x, "half"]), self._node("Add", [curve, "unit"])])

    def _classifier(self, x: str) -> str:
        """Add the layers that score a pair by its first token."""
        self._constant("first", np.array(0, np.int64))
        first = self._node("Gather", [x, "first"], attributes=[_integer("axis", 1)])
        if "classifier.out_proj.weight" in self._given:  # RoBERTa
            first = self._node("Tanh", [self._linear(first, "classifier.dense")])
            last = "classifier.out_proj"
        elif "pre_classifier.weight" in self._given:  # DistilBERT
            first = self._node("Relu", [self._linear(first, "pre_classifier")])
            last = "classifier"
        else:
            first = self._node("Tanh", [self._linear(first, f"{self._prefix}pooler.dense")])
            last = "classifier"
        self._node("Identity", [self._linear(first, last)], LOGITS)
        return LOGITS

    def _linear(self, x: str, place: str) -> str:
        name = f"{place}.weight"
        if name not in self._values:
            self._values[name] = np.ascontiguousarray(self._given[name].T.astype(np.float32))
        return self._node("Add", [self._node("MatMul", [x, name]), self._weight(f"{place}.bias")])

    def _norm(self, x: str, place: str) -> str:
        names = (f"{place}.weight", f"{place}.bias")
        if names[0] not in self._given:  # of checkpoints converted from TensorFlow
            names = (f"{place}.gamma", f"{place}.beta")
        attributes = [_real("epsilon", self._config.get("layer_norm_eps", 1e-12)), _integer("axis", -1)]
        return self._node("LayerNormalization", [x, *map(self._weight, names)], attributes=attributes)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._given[name].astype(np.float32))

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self._values[name] = np.ascontiguousarray(value) if value.ndim else value
        return name

    def _node(
        self, operator: str, inputs: Sequence[str], output: str = "", attributes: Iterable[dict[str, Any]] = ()
    ) -> str:
        output = output or f"{operator}.{len(self._nodes)}"
        self._nodes.append(ONNX["Node"](input=inputs, output=[output], op_type=operator, attribute=attributes))
        return output

    def _model(self, output: str) -> bytes:
        """Return the file of the model."""
        graph = ONNX["Graph"](
            name="bert",
            node=self._nodes,
            initializer=[_tensor(name, value) for name, value in self._values.items()],
            input=[_value(name, INT64, 2) for name in (IDS, MASK, TYPES)],
            output=[_value(output, FLOAT, 2 if output == LOGITS else 3)],
        )
        model = ONNX["Model"](ir_version=_IR_VERSION, graph=graph, opset_import=[{"version": _OPSET}])
        return bytes(model.SerializeToString())


def _tensor(name: str, value: npt.NDArray[Any]) -> dict[str, Any]:
    """Return a value that is part of the graph if it is small, and passed separately otherwise."""
    tensor = {"name": name, "dims": value.shape, "data_type": FLOAT if value.dtype == np.float32 else INT64}
    if value.size <= _SMALL:
        return {**tensor, "raw_data": value.tobytes()}
    return {**tensor, "external_data": [{"key": "location", "value": "weights"}], "data_location": 1}


def _value(name: str, kind: int, dimensions: int) -> dict[str, Any]:
    """Return an input or output whose dimensions are open."""
    shape = {"dim": [{"dim_param": f"{name}.{index}"} for index in range(dimensions)]}
    return {"name": name, "type": {"tensor_type": {"elem_type": kind, "shape": shape}}}


def _integer(name: str, value: int) -> dict[str, Any]:
    return {"name": name, "i": value, "type": 2}


def _integers(name: str, values: Iterable[int]) -> dict[str, Any]:
    return {"name": name, "ints": values, "type": 7}


def _real(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "f": value, "type": 1}
