"""Weights that float16 holds exactly, stored so: half the file, and the same scores to the bit.

Encoders are often published in half precision. Read into float32 their numbers need no more bits
than before; onnxruntime widens them once, when the graph is loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_ENDING = "_half"

# Smaller ones are not worth a node.
_LEAST_VALUES = 1_024


def store_halves(path: Path) -> int:
    """Rewrite the graph in `path`; how many of its weights are stored in half now."""
    model = onnx.load(path)
    graph = model.graph
    kept, added = [], []
    for tensor in graph.initializer:
        half = _half(tensor)
        if half is None:
            kept.append(tensor)
            continue
        name = f"{tensor.name}{_ENDING}"
        kept.append(numpy_helper.from_array(half, name))
        added.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
    if not added:
        return 0
    _replace(graph, kept, [*added, *graph.node])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return len(added)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what `store_halves` made of its weights undone, in place."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kept, nodes = dict(stored), []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] == f"{node.output[0]}{_ENDING}":
            half = numpy_helper.to_array(stored[node.input[0]])
            del kept[node.input[0]]
            whole = numpy_helper.from_array(half.astype(np.float32), node.output[0])
            kept[node.output[0]] = whole
        else:
            nodes.append(node)
    _replace(graph, list(kept.values()), nodes)
    return model


def _replace(
    graph: onnx.GraphProto, initializers: list[TensorProto], nodes: list[onnx.NodeProto]
) -> None:
    for field, values in ((graph.initializer, initializers), (graph.node, nodes)):
        # What is put in again must be a copy: the list that it is taken from is emptied first.
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)


def _half(tensor: TensorProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]] | None:
    """The values in float16, if nothing is lost and something gained."""
    if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < _LEAST_VALUES:
        return None
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), values) else None
