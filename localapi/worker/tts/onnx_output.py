"""More outputs for an ONNX model: what goes into a node inside it, and what comes out; needs no package to do so.

An ONNX file is one protobuf message (https://onnx.ai/onnx/repo-docs/IR.html). Messages that are written one after the
other are read as one, with their lists joined: so an output is added by appending it.
"""

from __future__ import annotations

from collections.abc import Iterator

GRAPH = 7
"""Of a ModelProto."""
NODE, _OUTPUT = 1, 12
"""Of a GraphProto."""
NODE_INPUT, NODE_OUTPUT, OPERATOR = 1, 2, 4
"""Of a NodeProto."""
_NAME = 1
"""Of a ValueInfoProto."""
_MORE = 0x80
"""In a byte of a number: another one follows, with the next seven bits."""


def with_output_of(operator: str, model: bytes) -> bytes:
    """Return the model with the output of its one node of this operator as its last output, unless it has that already.

    Raises ValueError if there is no such node, or several, or no model.
    """
    return _with(operator, NODE_OUTPUT, model)


def with_input_of(operator: str, model: bytes) -> bytes:
    """Return the model with the input of its one node of this operator as its last output, unless it has that already.

    Raises ValueError if there is no such node, or several, or no model.
    """
    return _with(operator, NODE_INPUT, model)


def _with(operator: str, end: int, model: bytes) -> bytes:
    graph = b"".join(fields(memoryview(model), GRAPH))
    nodes = [node for node in fields(memoryview(graph), NODE) if [*fields(node, OPERATOR)] == [operator.encode()]]
    if len(nodes) != 1:
        raise ValueError(f"{len(nodes)} nodes do {operator}, not one")
    name = bytes(next(fields(nodes[0], end)))
    if any(name in map(bytes, fields(output, _NAME)) for output in fields(memoryview(graph), _OUTPUT)):
        return model
    return model + field(GRAPH, field(_OUTPUT, field(_NAME, name)))


def fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Give the contents of every field of this number that is bytes, text or a message. Raises ValueError."""
    return (content for kind, _, content in spans(message) if kind == wanted and content is not None)


def spans(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Give each field's number, the whole of it, and its content if that is bytes, text or a message.

    Raises ValueError for what is no message.
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
    """The number that is written here, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return number, at
        shift += 7


def field(kind: int, content: bytes) -> bytes:
    """Return a field of bytes, text or a message, as it is written."""
    return _written(kind << 3 | 2) + _written(len(content)) + content


def number(kind: int, value: int) -> bytes:
    """Return a field of a whole number, as it is written."""
    return _written(kind << 3) + _written(value)


def _written(number: int) -> bytes:
    out = bytearray()
    while number >= _MORE:
        out.append(number & ~_MORE & 0xFF | _MORE)
        number >>= 7
    return bytes([*out, number])
