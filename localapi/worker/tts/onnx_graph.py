"""Change the graph of an ONNX model without any package: add outputs, and make its noise repeatable.

An ONNX file is one protobuf message (https://onnx.ai/onnx/repo-docs/IR.html). Messages written one after the other are
read as one, with their lists joined, so an output is added by appending it.

Voices draw random numbers for their rhythm and their sound, so the same sentence lasts a few percent longer or shorter
each time, and ONNX Runtime has no seed for a single run. Each node that draws numbers is replaced by nodes that take
them from a table, at a position that depends on the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

GRAPH = 7
"""Of a ModelProto."""
NODE, _OUTPUT = 1, 12
"""Of a GraphProto."""
NODE_INPUT, NODE_OUTPUT, OPERATOR = 1, 2, 4
"""Of a NodeProto."""
_NAME = 1
"""Of a ValueInfoProto."""
_MORE = 0x80
"""Set in a byte of a number if another byte follows, with the next seven bits."""


def with_end_of(operator: str, end: int, model: bytes) -> bytes:
    """Return the model with an end of its one node of this operator as its last output, unless it has that already.

    `end`: NODE_INPUT or NODE_OUTPUT. Raises ValueError if there is no such node, or several, or no model.
    """
    graph = b"".join(fields(memoryview(model), GRAPH))
    nodes = [node for node in fields(memoryview(graph), NODE) if [*fields(node, OPERATOR)] == [operator.encode()]]
    if len(nodes) != 1:
        raise ValueError(f"the model has {len(nodes)} nodes of the operator {operator}, not one")
    name = bytes(next(fields(nodes[0], end)))
    if any(name in map(bytes, fields(output, _NAME)) for output in fields(memoryview(graph), _OUTPUT)):
        return model
    return model + field(GRAPH, field(_OUTPUT, field(_NAME, name)))


def fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Return the contents of every field of this number that is bytes, text or a message. Raises ValueError."""
    return (content for kind, _, content in spans(message) if kind == wanted and content is not None)


def spans(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Yield each field's number, the whole of it, and its content if that is bytes, text or a message.

    Raises ValueError if this is not a message.
    """
    at = 0
    try:
        while at < len(message):
            begun = at
            content = None
            key, at = _varint(message, at)
            match key & 7:
                case 0:
                    _, at = _varint(message, at)
                case 1:
                    at += 8
                case 5:
                    at += 4
                case 2:
                    length, at = _varint(message, at)
                    content = message[at : at + length]
                    at += length
                case other:
                    raise ValueError(f"no protobuf: a field of type {other}")
            yield key >> 3, message[begun:at], content
    except IndexError:
        raise ValueError("no protobuf: it ends too early") from None


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that is encoded here, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return number, at
        shift += 7


def field(kind: int, content: bytes) -> bytes:
    """Return an encoded field of bytes, text or a message."""
    return _written(kind << 3 | 2) + _written(len(content)) + content


def number(kind: int, value: int) -> bytes:
    """Return an encoded field of a whole number."""
    return _written(kind << 3) + _written(value)


def _written(number: int) -> bytes:
    out = bytearray()
    while number >= _MORE:
        out.append(number & ~_MORE & 0xFF | _MORE)
        number >>= 7
    return bytes([*out, number])


_DRAWS = b"RandomNormalLike"
_INITIALIZER = 5
"""Of a GraphProto."""
_DIMENSION, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9
"""Of a TensorProto."""
_FLOAT, _INT64 = 1, 7
"""Types of a tensor's values."""
_NUMBERS = 262_139
"""Size of the table (1 MB). A prime, so that rows of a sound do not repeat the same numbers."""
_STEPS = (7_919, 104_729, 15_485_863)
"""How far apart the positions are for inputs whose sums differ by one, for each node in turn."""


def with_same_noise(model: bytes, source: str) -> bytes:
    """Return the model with noise that depends only on `source`, an input of whole numbers; unchanged without noise.

    Raises ValueError if this is not a model.
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
    """Yield the nodes that give `out` numbers in the shape of `like`."""
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
