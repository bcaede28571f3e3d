"""Change the graph of an ONNX model: add outputs, and make its noise repeatable.

Voices draw random numbers for their rhythm and their sound, so the same sentence lasts a few percent longer or shorter
each time, and ONNX Runtime has no seed for a single run. Each node that draws numbers is replaced by nodes that take
them from a table, at a position that depends on the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf import message  # type: ignore[import-untyped]

from localapi.worker.onnx_messages import FLOAT, INT64, ONNX

_DRAWS: Final = "RandomNormalLike"
_NUMBERS: Final = 262_139
"""Size of the table (1 MB). A prime, so that rows of audio do not repeat the same numbers."""
_STEPS: Final = (7_919, 104_729, 15_485_863)
"""Distances between the positions for inputs whose sums differ by one, for each node in turn."""


def _parsed(model: bytes) -> Any:
    try:
        return ONNX["Model"].FromString(model)
    except message.DecodeError as error:
        raise ValueError(f"no protobuf: {error}") from error


def with_end_of(operator: str, end: str, model: bytes) -> bytes:
    """Return the model with one end of its only node of this operator as its last output, unless it already has that.

    `end` is "input" or "output". Raise ValueError if there is no such node, or several, or no model.
    """
    whole = _parsed(model)
    nodes = [node for node in whole.graph.node if node.op_type == operator]
    if len(nodes) != 1:
        raise ValueError(f"the model has {len(nodes)} nodes of the operator {operator}, not one")
    name = getattr(nodes[0], end)[0]
    if name in {output.name for output in whole.graph.output}:
        return model
    whole.graph.output.add(name=name)
    return bytes(whole.SerializeToString())


def with_same_noise(model: bytes, source: str) -> bytes:
    """Return the model with noise that depends only on `source`, an input of whole numbers; unchanged without noise.

    Raise ValueError if this is not a model.
    """
    whole = _parsed(model)
    nodes: list[Any] = []
    drawn = 0
    for node in whole.graph.node:
        if node.op_type != _DRAWS:
            nodes.append(node)
            continue
        name = node.output[0]
        _add_tensor(whole, f"{name}/noise/step", INT64, np.int64(_STEPS[drawn % len(_STEPS)]).tobytes())
        nodes += _table_nodes(source, node.input[0], name)
        drawn += 1
    if not drawn:
        return model
    table = np.random.default_rng(1).standard_normal(_NUMBERS, np.float32)
    _add_tensor(whole, "noise/table", FLOAT, table.tobytes(), [_NUMBERS])
    _add_tensor(whole, "noise/count", INT64, np.int64(_NUMBERS).tobytes())
    _add_tensor(whole, "noise/one", INT64, np.int64(1).tobytes())
    graph = ONNX["Graph"](node=nodes)
    whole.graph.ClearField("node")
    whole.graph.MergeFrom(graph)
    return bytes(whole.SerializeToString())


def _table_nodes(source: str, like: str, out: str) -> Iterator[Any]:
    """Yield the nodes that give `out` numbers in the shape of `like`."""
    at = f"{out}/noise"
    for operator, inputs, output in (
        ("ReduceSum", [source], f"{at}/sum"),
        ("Squeeze", [f"{at}/sum"], f"{at}/seed"),
        ("Mul", [f"{at}/seed", f"{at}/step"], f"{at}/begin"),
        ("Size", [like], f"{at}/size"),
        ("Add", [f"{at}/begin", f"{at}/size"], f"{at}/end"),
        ("Range", [f"{at}/begin", f"{at}/end", "noise/one"], f"{at}/range"),
        ("Mod", [f"{at}/range", "noise/count"], f"{at}/places"),
        ("Gather", ["noise/table", f"{at}/places"], f"{at}/numbers"),
        ("Shape", [like], f"{at}/shape"),
        ("Reshape", [f"{at}/numbers", f"{at}/shape"], out),
    ):
        yield ONNX["Node"](input=inputs, output=[output], op_type=operator)


def _add_tensor(model: Any, name: str, kind: int, values: bytes, shape: Sequence[int] = ()) -> None:
    model.graph.initializer.add(dims=shape, data_type=kind, name=name, raw_data=values)
