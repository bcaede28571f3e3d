"""ONNX's messages (https://onnx.ai/onnx/repo-docs/IR.html) without the package onnx, which nothing else here needs.

Only the fields that are used here are declared. protobuf keeps all other fields of a file unchanged.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

FLOAT, INT64 = 1, 7
"""Types of a tensor's values."""
_DECLARED: Final[dict[str, dict[str, tuple[int, Any]]]] = {
    "Model": {"ir_version": (1, int), "graph": (7, "Graph"), "opset_import": (8, ["Opset"])},
    "Opset": {"version": (2, int)},
    "Graph": {
        "node": (1, ["Node"]), "name": (2, str), "initializer": (5, ["Tensor"]), "input": (11, ["Value"]),
        "output": (12, ["Value"]),
    },
    "Node": {"input": (1, [str]), "output": (2, [str]), "op_type": (4, str), "attribute": (5, ["Attribute"])},
    "Attribute": {"name": (1, str), "f": (2, float), "i": (3, int), "ints": (8, [int]), "type": (20, int)},
    "Tensor": {
        "dims": (1, [int]), "data_type": (2, int), "name": (8, str), "raw_data": (9, bytes),
        "external_data": (13, ["Entry"]), "data_location": (14, int),
    },
    "Entry": {"key": (1, str), "value": (2, str)},
    "Value": {"name": (1, str), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, int), "shape": (2, "Shape")},
    "Shape": {"dim": (1, ["Dimension"])},
    "Dimension": {"dim_param": (2, str)},
}  # fmt: skip
"""The number and the type of each field; a list of one type is a repeated field."""


def _classes() -> dict[str, Any]:
    kind = descriptor_pb2.FieldDescriptorProto
    types = {str: kind.TYPE_STRING, int: kind.TYPE_INT64, bytes: kind.TYPE_BYTES, float: kind.TYPE_FLOAT}
    file = descriptor_pb2.FileDescriptorProto(name="localapi_onnx.proto", package="localapi_onnx")
    for name, fields in _DECLARED.items():
        message = file.message_type.add(name=name)
        for field, (number, declared) in fields.items():
            is_list = isinstance(declared, list)
            inner = declared[0] if is_list else declared
            added = message.field.add(name=field, number=number)
            added.label = kind.LABEL_REPEATED if is_list else kind.LABEL_OPTIONAL
            if isinstance(inner, str):
                added.type, added.type_name = kind.TYPE_MESSAGE, f".localapi_onnx.{inner}"
            else:
                added.type = types[inner]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"localapi_onnx.{name}")) for name in _DECLARED}


ONNX: Final = _classes()
"""protobuf's class of each message."""
