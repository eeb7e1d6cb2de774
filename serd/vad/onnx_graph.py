"""Reading constants out of an ONNX model, and writing small models, without the onnx package.

Only what rearranging a known network takes: an ONNX file is a protobuf message
(https://protobuf.dev/programming-guides/encoding/) of the schema in
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, whose field numbers stand below. Files are
not checked here: their SHA-256 is, before they get here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from serd.types import Float32Array, Int64Array

OPSET = 16
_IR_VERSION = 8  # goes with opset 16

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_OPSET_VERSION = 2
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 1, 3, 5, 6
_ATTRIBUTE_TYPE = 20
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 1, 2, 1, 1, 2
_INT_ATTRIBUTE = 2
_FLOAT, _INT16, _INT64 = 1, 5, 7
_ELEMENTS = {"float32": _FLOAT, "int16": _INT16, "int64": _INT64}

FLOAT = _FLOAT
"""What the attribute ``to`` of a Cast says for float32."""


def read_constants(model: bytes) -> dict[str, Float32Array]:
    """float32 constants of a model, in subgraphs too, by the name of the value that they give."""
    found: dict[str, Float32Array] = {}
    for number, graph in _fields(memoryview(model)):
        if number == _MODEL_GRAPH:
            _constants_of(graph, found)
    return found


class GraphWriter:
    """Collects the nodes of a graph, in the order in which they run."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._initializers: list[bytes] = []

    def constant(self, name: str, values: Float32Array | Int64Array) -> str:
        """Add a constant (float32 or int64); returns its name."""
        kind = _INT64 if values.dtype == np.int64 else _FLOAT
        tensor = b"".join(_field(_TENSOR_DIMS, size) for size in values.shape)
        tensor += _field(_TENSOR_TYPE, kind) + _field(_TENSOR_NAME, name)
        self._initializers.append(tensor + _field(_TENSOR_RAW, values.tobytes()))
        return name

    def node(self, op: str, inputs: Sequence[str], *outputs: str, **attributes: int) -> str:
        """Add an operator with integer attributes; returns the name of its first output."""
        node = b"".join(_field(_NODE_INPUT, name) for name in inputs)
        node += b"".join(_field(_NODE_OUTPUT, name) for name in outputs)
        node += _field(_NODE_OP, op)
        for name, value in attributes.items():
            attribute = _field(_ATTRIBUTE_NAME, name) + _field(_ATTRIBUTE_INT, value)
            attribute += _field(_ATTRIBUTE_TYPE, _INT_ATTRIBUTE)
            node += _field(_NODE_ATTRIBUTE, attribute)
        self._nodes.append(node)
        return outputs[0]

    def model(
        self,
        name: str,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, Sequence[int | str]],
        dtypes: Mapping[str, str] | None = None,
    ) -> bytes:
        """The finished model. A size in `inputs` and `outputs` is a number or a name.

        They are float32 but for those whose `dtypes` are given (``int16``, ``int64``).
        """
        dtypes = dtypes or {}

        def values(number: int, shapes: Mapping[str, Sequence[int | str]]) -> bytes:
            return b"".join(
                _field(number, _value(name, shape, _ELEMENTS[dtypes.get(name, "float32")]))
                for name, shape in shapes.items()
            )

        graph = b"".join(_field(_GRAPH_NODE, node) for node in self._nodes)
        graph += _field(_GRAPH_NAME, name)
        graph += b"".join(_field(_GRAPH_INITIALIZER, tensor) for tensor in self._initializers)
        graph += values(_GRAPH_INPUT, inputs) + values(_GRAPH_OUTPUT, outputs)
        return (
            _field(_MODEL_IR_VERSION, _IR_VERSION)
            + _field(_MODEL_OPSET, _field(_OPSET_VERSION, OPSET))
            + _field(_MODEL_GRAPH, graph)
        )


def _constants_of(graph: memoryview, found: dict[str, Float32Array]) -> None:
    for number, node in _fields(graph):
        if number != _GRAPH_NODE:
            continue
        output = ""
        for part, value in _fields(node):
            if part == _NODE_OUTPUT:
                output = str(value, "utf-8")
            elif part == _NODE_ATTRIBUTE:
                for kind, content in _fields(value):
                    if kind == _ATTRIBUTE_GRAPH:
                        _constants_of(content, found)
                    elif kind == _ATTRIBUTE_TENSOR:
                        _tensor(output, content, found)


def _tensor(name: str, tensor: memoryview, found: dict[str, Float32Array]) -> None:
    shape: list[int] = []
    raw, kind = memoryview(b""), 0
    for number, value in _fields(tensor):
        if number == _TENSOR_RAW:
            raw = value
        elif number == _TENSOR_DIMS:
            shape.extend(_varints(value))
        elif number == _TENSOR_TYPE:
            [kind] = _varints(value)
    if kind == _FLOAT and raw:
        found[name] = np.frombuffer(raw, "<f4").reshape(shape)


def _value(name: str, shape: Sequence[int | str], element: int) -> bytes:
    """ValueInfoProto of a tensor."""
    dims = b""
    for size in shape:
        dim = _field(_DIM_VALUE if isinstance(size, int) else _DIM_NAME, size)
        dims += _field(_SHAPE_DIM, dim)
    tensor = _field(_TENSOR_ELEMENT, element) + _field(_TENSOR_SHAPE, dims)
    return _field(_VALUE_NAME, name) + _field(_VALUE_TYPE, _field(_TYPE_TENSOR, tensor))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Numbers and contents of a message's fields; a varint's content is its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        start = at
        wire = key & 7
        if wire == 2:
            size, start = _varint(message, at)
            at = start + size
        elif wire == 0:
            _, at = _varint(message, at)
        else:
            at += 8 if wire == 1 else 4
        yield key >> 3, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A varint, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _varints(content: memoryview) -> list[int]:
    """Values of a repeated integer field, packed or single."""
    values = []
    at = 0
    while at < len(content):
        value, at = _varint(content, at)
        values.append(value)
    return values


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field: a non-negative integer as a varint, anything else with its length before it."""
    if isinstance(value, int):
        return _encoded(number << 3) + _encoded(value)
    data = value.encode() if isinstance(value, str) else value
    return _encoded(number << 3 | 2) + _encoded(len(data)) + data


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
