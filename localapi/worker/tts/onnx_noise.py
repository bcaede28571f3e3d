"""Noise for an ONNX model that is the same each time for the same input; needs no package to do so.

Voices draw random numbers for their rhythm and their sound, so the same sentence lasts some percent longer or shorter
from one time to the next. ONNX Runtime has no seed for a single run. Here each node that draws numbers gives way to
nodes that take them from a table, from a place that the input decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from localapi.worker.tts.onnx_output import (
    GRAPH,
    NODE,
    NODE_INPUT,
    NODE_OUTPUT,
    OPERATOR,
    field,
    fields,
    number,
    spans,
)

_DRAWS = b"RandomNormalLike"
_INITIALIZER = 5
"""Of a GraphProto."""
_DIMENSION, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9
"""Of a TensorProto."""
_FLOAT, _INT64 = 1, 7
"""Types of a tensor's values."""
_NUMBERS = 262_139
"""In the table, 1 MB: a prime, so that rows of a sound do not meet the same numbers again."""
_STEPS = (7_919, 104_729, 15_485_863)
"""How far apart the places are for inputs whose sums differ by one; another for each node."""


def with_same_noise(model: bytes, source: str) -> bytes:
    """Return the model with noise that only depends on `source`, an input of whole numbers; as it is if it draws none.

    Raises ValueError for what is no model.
    """
    graph = memoryview(b"".join(fields(memoryview(model), GRAPH)))
    parts: list[bytes] = []
    drawn = 0
    for kind, whole, content in spans(graph):
        if kind != NODE or content is None or [*fields(content, OPERATOR)] != [_DRAWS]:
            parts.append(bytes(whole))
            continue
        like, out = next(fields(content, NODE_INPUT)), next(fields(content, NODE_OUTPUT))
        parts += _nodes(source, bytes(like).decode(), bytes(out).decode(), _STEPS[drawn % len(_STEPS)])
        drawn += 1
    if not drawn:
        return model
    table = np.random.default_rng(1).standard_normal(_NUMBERS, np.float32)
    parts += [
        _tensor("noise/table", _FLOAT, table.tobytes(), [_NUMBERS]),
        _tensor("noise/count", _INT64, np.int64(_NUMBERS).tobytes()),
        _tensor("noise/one", _INT64, np.int64(1).tobytes()),
    ]
    rest = [bytes(whole) for kind, whole, _ in spans(memoryview(model)) if kind != GRAPH]
    return b"".join([*rest, field(GRAPH, b"".join(parts))])


def _nodes(source: str, like: str, out: str, step: int) -> Iterator[bytes]:
    """What gives `out` numbers in the shape of `like`."""
    at = f"{out}/noise"
    yield _tensor(f"{at}/step", _INT64, np.int64(step).tobytes())
    yield _node("ReduceSum", [source], f"{at}/sum")
    yield _node("Squeeze", [f"{at}/sum"], f"{at}/seed")
    yield _node("Mul", [f"{at}/seed", f"{at}/step"], f"{at}/begin")
    yield _node("Size", [like], f"{at}/size")
    yield _node("Add", [f"{at}/begin", f"{at}/size"], f"{at}/end")
    yield _node("Range", [f"{at}/begin", f"{at}/end", "noise/one"], f"{at}/range")
    yield _node("Mod", [f"{at}/range", "noise/count"], f"{at}/places")
    yield _node("Gather", ["noise/table", f"{at}/places"], f"{at}/numbers")
    yield _node("Shape", [like], f"{at}/shape")
    yield _node("Reshape", [f"{at}/numbers", f"{at}/shape"], out)


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    ends = [field(NODE_INPUT, name.encode()) for name in inputs]
    return field(NODE, b"".join([*ends, field(NODE_OUTPUT, output.encode()), field(OPERATOR, operator.encode())]))


def _tensor(name: str, kind: int, values: bytes, shape: Sequence[int] = ()) -> bytes:
    dimensions = [number(_DIMENSION, size) for size in shape]
    content = [*dimensions, number(_TYPE, kind), field(_TENSOR_NAME, name.encode()), field(_RAW, values)]
    return field(_INITIALIZER, b"".join(content))
